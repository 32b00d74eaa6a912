"""What a sweep writes beside its rows: its plan, who is at work on what, and how long each run took.

    FOLDER/progress/sweep-ID.json       the runs of a sweep and their keys
    FOLDER/progress/sweep-ID-ONE.lock   held by one process while it does that sweep
    FOLDER/progress/NAME.json           one run: its state and its times; NAME.lock is held while someone is at it

The locks are the operating system's (`flock`) and end with the process that holds them: a run that is recorded as
running and whose lock is free was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from compress.errors import CompressError
from compress.files import atomic_write, require_file
from pipelines.backbone_store import Made
from pipelines.locks import is_held, trying
from pipelines.sweep_runs import SweepRun

RUNNING = "running"
_SWEEP = "sweep-"
_LARGEST = 50_000_000  # bytes of a plan: 150 for each run, of which a sweep has 100,000 at most
_LONGEST = 200  # characters of a run's name; file systems take 255 with what stands behind it


@dataclass(frozen=True)
class Record:
    """A run as it was begun or ended: `started` in UTC, the seconds of its backbones and of the detector apart.

    `state` is RUNNING, or DONE or FAILED as engines have it (`pipelines.engines.interface`).
    """

    state: str
    key: str
    kind: str
    started: str
    pid: int
    seconds: float | None = None
    evaluate_seconds: float | None = None
    made: tuple[Made, ...] = ()


@dataclass(frozen=True)
class Announced:
    """The plan of a sweep: the keys of its runs under their names."""

    identity: str
    started: str
    command: str
    runs: dict[str, str]


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_record(folder: Path, name: str, record: Record) -> None:
    """Write the record of the run `name` of the results in `folder`."""
    atomic_write(_progress(folder) / f"{name}.json", json.dumps(dataclasses.asdict(record), indent=1) + "\n")


def read_records(folder: Path) -> dict[str, Record]:
    """The records of all runs, under their names; what is damaged is passed over."""
    found = {}
    for file in sorted((folder / "progress").glob("*.json")):
        if file.name.startswith(_SWEEP):
            continue
        with contextlib.suppress(*_DAMAGED):
            found[file.stem] = _record(json.loads(require_file(file, most=_LARGEST).read_text()))
    return found


def read_announced(folder: Path) -> list[Announced]:
    """The plans of all sweeps into `folder`, the latest last; what is damaged is passed over."""
    found = []
    for file in (folder / "progress").glob(f"{_SWEEP}*.json"):
        with contextlib.suppress(*_DAMAGED):
            found.append(_announced(json.loads(require_file(file, most=_LARGEST).read_text())))
    return sorted(found, key=lambda each: each.started)


@contextlib.contextmanager
def announced(folder: Path, runs: Sequence[SweepRun], command: str) -> Iterator[None]:
    """Tell others, for the time of the block, that a sweep of these runs is going on.

    Raises:
        CompressError: `folder` cannot be written.
    """
    keys = {run.name: run.key for run in runs}
    identity = hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:12]
    progress = _progress(folder)
    own = progress / f"{_SWEEP}{identity}-{secrets.token_hex(4)}.lock"  # the same sweep may go on twice
    try:
        with trying(own, wait=True):
            plan = Announced(identity, now(), command, keys)
            atomic_write(progress / f"{_SWEEP}{identity}.json", json.dumps(dataclasses.asdict(plan), indent=1) + "\n")
            yield
    finally:
        own.unlink(missing_ok=True)


def sweeps_going_on(folder: Path) -> list[str]:
    """The identities (see `Announced`) of the sweeps that are going on, one for each process that does one."""
    files = (folder / "progress").glob(f"{_SWEEP}*.lock")
    return [file.stem.removeprefix(_SWEEP).partition("-")[0] for file in files if is_held(file)]


def is_running(folder: Path, name: str) -> bool:
    """Whether someone is at work on the run `name`."""
    return is_held(run_lock(folder, name))


def run_lock(folder: Path, name: str) -> Path:
    """The lock of the run `name`."""
    return folder / "progress" / f"{name}.lock"


_DAMAGED = (CompressError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _record(given: dict[str, Any]) -> Record:
    made = tuple(Made(**each) for each in given["made"])
    record = Record(**{**given, "made": made})
    _check(str, record.state, record.key, record.kind, record.started, *(each.name for each in made))
    _check(str, *(each.kind for each in made))
    _check((int, float), record.pid, *(each.seconds for each in made))
    _check((int, float, type(None)), record.seconds, record.evaluate_seconds)
    return record


def _announced(given: dict[str, Any]) -> Announced:
    plan = Announced(**given)
    _check(str, plan.identity, plan.started, plan.command, *plan.runs, *plan.runs.values())
    # Names become paths, of locks too: none may lead out of the folder.
    if not all(Path(name).name == name and len(name) <= _LONGEST for name in plan.runs):
        raise ValueError("a run is called like a path")
    return plan


def _check(kinds: type | tuple[type, ...], *values: object) -> None:
    if not all(isinstance(value, kinds) for value in values):
        raise TypeError("not what was written")


def _progress(folder: Path) -> Path:
    progress = folder / "progress"
    try:
        progress.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompressError(f"cannot write results to {folder}: {error.strerror}") from error
    return progress
