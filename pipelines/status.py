"""How the sweeps into a folder stand, read while they go on: nothing is written but locks that are tried."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.errors import CompressError
from pipelines.engines.interface import FAILED
from pipelines.results import failure_of, is_finished
from pipelines.run_records import RUNNING, Record, is_running, read_announced, read_records, sweeps_going_on

STATES = ("running", "waiting", "interrupted", "failed", "done")


@dataclass(frozen=True)
class RunStatus:
    """A run: done; running; failed, for `reason`; interrupted, as its process was killed; or waiting.

    `started` is in UTC, and `seconds` are those that it took.
    """

    name: str
    state: str
    started: str | None = None
    seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class FolderStatus:
    """All runs of the sweeps into a folder, and the commands of those sweeps that are going on."""

    going_on: tuple[str, ...]
    runs: tuple[RunStatus, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The runs in each of `STATES`."""
        return {state: sum(run.state == state for run in self.runs) for state in STATES}


def folder_status(folder: Path) -> FolderStatus:
    """How the sweeps into `folder` stand. Of a run in several plans the latest plan counts.

    Raises:
        CompressError: no such folder, or no sweep has written into it.
    """
    plans = read_announced(folder)
    if not plans:
        missing = "has no plan of a sweep" if folder.is_dir() else "does not exist"
        raise CompressError(f"{folder} {missing}: compress sweep -o {folder} writes one as it begins")
    going_on = sweeps_going_on(folder)
    keys = {name: key for plan in plans for name, key in plan.runs.items()}
    records = read_records(folder)
    return FolderStatus(
        tuple(plan.command for plan in plans if plan.identity in going_on),
        tuple(_status(folder, name, key, records.get(name)) for name, key in keys.items()),
    )


def _status(folder: Path, name: str, key: str, record: Record | None) -> RunStatus:
    if record and record.key != key:  # of another plan, or of a version that kept none
        record = None
    started, seconds = (record.started, record.seconds) if record else (None, None)
    # The lock first: between it and the row a run may end, and is done then, never waiting again.
    running = is_running(folder, name)
    if is_finished(folder, name, key):
        return RunStatus(name, "done", started, seconds)
    if running:
        return RunStatus(name, "running", started)
    if record and record.state == RUNNING:  # whatever became of it the last time
        return RunStatus(name, "interrupted", started)
    reason = failure_of(folder, name, key)
    if reason is not None or (record and record.state == FAILED):
        return RunStatus(name, "failed", started, seconds, reason or "no reason recorded")
    return RunStatus(name, "waiting", started)
