"""What a sweep would do, and how long it may take: nothing is made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from anomaly.progress import Track, quiet
from pipelines.backbone_store import BackboneStore, Request
from pipelines.results import is_finished
from pipelines.run_records import Record, read_records
from pipelines.sweep_plan import SweepPlan
from pipelines.sweep_runs import SweepRun, open_runs


@dataclass(frozen=True)
class Estimate:
    """Seconds of work, from the recorded times of `rests_on` runs; without what is of the `unknown` kinds."""

    seconds: float
    rests_on: int
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """The runs that are done and those to do, the backbones to make for them, and the time they may take."""

    done: tuple[SweepRun, ...]
    todo: tuple[SweepRun, ...]
    backbones: tuple[Request, ...]
    estimate: Estimate


def preview(plan: SweepPlan, folder: Path, *, track: Track = quiet) -> Preview:
    """What `sweep` would do with this plan and folder.

    Raises:
        CompressError, AnomalyError: what `sweep` refuses before any run.
    """
    runs = open_runs(plan, track=track)
    done = tuple(run for run in runs if is_finished(folder, run.name, run.key))
    finished = {run.name for run in done}
    todo = tuple(run for run in runs if run.name not in finished)
    store = BackboneStore(folder / "backbones")
    backbones = {each.key: each for run in todo for each in store.missing(run.request)}
    made = tuple(backbones.values())
    return Preview(done, todo, made, estimate(todo, made, read_records(folder)))


def estimate(runs: Iterable[SweepRun], backbones: Iterable[Request], records: Mapping[str, Record]) -> Estimate:
    """How long `runs` and making `backbones` may take, by the mean times of their kinds in `records`.

    The mean and not the median, as one ranking or sparse phase serves several cuts: the first of them bears its time.
    """
    times: dict[str, list[float]] = defaultdict(list)
    rests_on = 0
    for record in records.values():
        if record.evaluate_seconds is not None:
            times[record.kind].append(record.evaluate_seconds)
        for made in record.made:
            times[made.kind].append(made.seconds)
        rests_on += record.evaluate_seconds is not None or bool(record.made)
    kinds = [*(each.kind for each in backbones), *(each.kind for each in runs)]
    known = [mean(times[kind]) for kind in kinds if kind in times]
    return Estimate(sum(known), rests_on, tuple(dict.fromkeys(kind for kind in kinds if kind not in times)))
