"""Many runs: backbones x datasets x seeds, one file each, resumed where they stopped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from anomaly.progress import Track, quiet
from compress.training import Report
from pipelines.backbone_store import BackboneStore
from pipelines.console import note
from pipelines.engines import ENGINES, ONE, SERIAL, Workers, check_engine
from pipelines.engines.interface import DONE, FAILED, KEPT, LOST
from pipelines.engines.schedule import schedule
from pipelines.results import failure_file, is_finished
from pipelines.run_records import announced, sweeps_going_on
from pipelines.sweep_plan import SweepPlan
from pipelines.sweep_runs import open_runs
from pipelines.sweep_worker import SweepTask, SweepWorker
from pipelines.tracking import Tracker


@dataclass(frozen=True)
class SweepOutcome:
    """Counts of runs by how they ended: run now, found finished, failed."""

    run: int
    kept: int
    failed: int


def sweep(
    plan: SweepPlan,
    folder: Path,
    *,
    command: str,
    engine: str = SERIAL,
    workers: Workers = ONE,
    tracker: Tracker | None = None,
    track: Track = quiet,
    report: Report | None = None,
) -> SweepOutcome:
    """Run `plan` into `folder`: per run a row and pictures, per backbone an artifact in `folder`/backbones.

    A run whose result is there, made from the same inputs, is kept. A run that is refused, raises, or kills its worker
    again and again, is recorded with its reason and the rest goes on. Killed, a sweep loses the runs in progress, and
    of a training what came after its last check. Several sweeps may go into one folder at a time: what they have in
    common is done by one of them.

    Args:
        engine: a key of `pipelines.engines.ENGINES`.
        tracker: is told of every run that is done, was done before, or failed.

    Raises:
        CompressError, AnomalyError: the folder, a dataset, the images or the weights are not to be had, or a
            slimming asks for what it was not given, before any run.
    """
    check_engine(engine, workers)
    runs = open_runs(plan, track=track)
    store = BackboneStore(folder / "backbones")
    with announced(folder, runs, command):
        todo = [run for run in runs if not is_finished(folder, run.name, run.key)]
        counts = Counter({KEPT: len(runs) - len(todo)})
        kept = {run.name for run in runs} - {run.name for run in todo}
        for name in kept:  # what failed was other settings under this name, and these are what is asked for now
            failure_file(folder, name).unlink(missing_ok=True)
        if tracker:
            tracker.done(folder, kept)
        makes = {run.name: store.makes(run.request) for run in todo}
        do = SweepWorker(runs, folder, command, track=track, report=report)
        keys = tuple((run.name, run.key) for run in todo)
        started = ENGINES[engine](SweepTask(plan, folder, command, Path.cwd(), keys), do, workers)
        try:
            for ended in track(schedule(started, makes), "sweep", len(todo)):
                if ended.state == LOST:
                    ended = do.give_up(ended)
                failed = ended.state == FAILED
                counts[ended.state] += 1
                if ended.trace:
                    note(ended.trace.rstrip())
                note(f"failed: {ended.name}: {ended.text}" if failed else f"{ended.name}: {ended.text or ended.state}")
                if tracker and failed:
                    tracker.failed(folder, ended.name)
                elif tracker:
                    tracker.done(folder, [ended.name])
        finally:
            started.close()
        # Failed runs need them again, and so may other sweeps than this one.
        if not counts[FAILED] and len(sweeps_going_on(folder)) == 1:
            store.forget_phases(run.request for run in runs)
    return SweepOutcome(counts[DONE], counts[KEPT], counts[FAILED])
