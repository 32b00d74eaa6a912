"""What a sweep writes beside its rows: its plan, who is at work on what, and how long each run took.

    FOLDER/progress/sweep-ID.json   the runs of a sweep and their keys; its lock is held while the sweep goes on
    FOLDER/progress/NAME.json       one run: its state and its times; its lock is held while someone is at work on it

The locks are the operating system's (`flock`) and end with the process that holds them: a run that is recorded as
running and whose lock is free was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from compress.errors import CompressError
from compress.files import atomic_write
from pipelines.backbone_store import Made
from pipelines.locks import is_held, trying
from pipelines.sweep_runs import SweepRun

RUNNING, DONE, FAILED = "running", "done", "failed"
_SWEEP = "sweep-"


@dataclass(frozen=True)
class Record:
    """A run as it was begun or ended: `started` in UTC, the seconds of its backbones and of the detector apart."""

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
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            given = json.loads(file.read_text())
            found[file.stem] = Record(**{**given, "made": tuple(Made(**each) for each in given["made"])})
    return found


def read_announced(folder: Path) -> list[Announced]:
    """The plans of all sweeps into `folder`, the latest last; what is damaged is passed over."""
    found = []
    for file in (folder / "progress").glob(f"{_SWEEP}*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            found.append(Announced(**json.loads(file.read_text())))
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
    with trying(progress / f"{_SWEEP}{identity}.lock") as alone:
        if alone:  # else the same sweep is going on already, and has told
            plan = Announced(identity, now(), command, keys)
            atomic_write(progress / f"{_SWEEP}{identity}.json", json.dumps(dataclasses.asdict(plan), indent=1) + "\n")
        yield


def sweeps_going_on(folder: Path) -> set[str]:
    """The identities of the sweeps that are going on, see `Announced`."""
    files = (folder / "progress").glob(f"{_SWEEP}*.lock")
    return {file.stem.removeprefix(_SWEEP) for file in files if is_held(file)}


def is_running(folder: Path, name: str) -> bool:
    """Whether someone is at work on the run `name`."""
    return is_held(run_lock(folder, name))


def run_lock(folder: Path, name: str) -> Path:
    """The lock of the run `name`."""
    return folder / "progress" / f"{name}.lock"


def _progress(folder: Path) -> Path:
    progress = folder / "progress"
    try:
        progress.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompressError(f"cannot write results to {folder}: {error.strerror}") from error
    return progress
