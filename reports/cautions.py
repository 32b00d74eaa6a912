"""What makes the numbers of a report less comparable, or less certain, than they look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reports.groups import Row
from reports.runs import NA, number, text
from reports.summary import Summary

_EXPERIMENT = {
    "recover_steps": "steps of recovery",
    "sparse_steps": "steps of the sparse phase",
    "index": "indexes",
    "dimension": "lengths of a patch's vector",
}


def cautions(summary: Summary) -> list[str]:
    """One sentence for each thing a reader must know before comparing two rows."""
    rows = [row for group in summary.groups for row in group.rows]
    return [*_mixed(summary), *_data(rows), *_weights(rows), *_times(rows), *_chance(summary), *_missing(summary)]


def _mixed(summary: Summary) -> Iterator[str]:
    """Settings whose mean is of unlike experiments: what a row says of them, and what only its command may."""
    for group in summary.groups:
        label, apart = summary.label(group), "report them from folders of their own"
        # One command may differ within itself: a recovery stops early, an index follows the size of its bank.
        of_categories = [here for here in _parts(group.rows, "category").values() if len(_values(here, "command")) > 1]
        for name, told in _EXPERIMENT.items():
            values = max((_values(here, name) for here in of_categories), key=len, default=[])
            if len(values) > 1:
                yield f"{label} is a mean over runs with different {told} ({_some(values)}): {apart}."
        parts = sorted(_parts(group.rows, "category", "seed").items())
        if repeated := [f"{category} with seed {seed}" for (category, seed), here in parts if len(here) > 1]:
            yield (
                f"{label} has several runs on {_some(repeated)}, and their mean counts as one run: if they were made "
                f"in different ways (see their commands), {apart}."
            )


def _data(rows: list[Row]) -> Iterator[str]:
    for (dataset, category), here in sorted(_parts(rows, "dataset", "category").items()):
        if len(values := _values(here, "data_fingerprint")) > 1:
            yield f"The runs on {dataset}, {category} used different data ({_some(values)})."
    for (arch, dataset, category), here in sorted(_parts(rows, "arch", "dataset", "category").items()):
        if len(values := _values(here, "bank_size")) > 1:
            yield f"The runs of {arch} on {dataset}, {category} kept memory banks of different sizes ({_some(values)})."


def _weights(rows: list[Row]) -> Iterator[str]:
    for arch in _distinct(text(row, "arch") for row in rows):
        sources = _distinct(text(row, "weights_source") for row in rows if text(row, "arch") == arch)
        if len(sources) > 1:
            yield f"The runs of {arch} started from different weights ({_some(sources)})."
        if any(source.startswith(("none", "random")) for source in sources):
            yield f"{arch} ran with random weights: its AUROC says little about a trained network."


def _times(rows: list[Row]) -> Iterator[str]:
    timed = [row for row in rows if number(row, "ms_total") is not None]
    machines = _distinct(f"{text(row, 'machine')}, {text(row, 'threads')} threads" for row in timed)
    if len(machines) > 1:
        yield f"Times come from different machines and are compared only within one ({_some(machines)})."
    runtimes = _distinct(f"{text(row, 'precision')} in {name}" for row in timed if (name := text(row, "runtime")) != NA)
    if len({told.rpartition(" in ")[2] for told in runtimes}) > 1:
        yield f"Times come from different runtimes, whose difference is part of what is compared ({_some(runtimes)})."


def _chance(summary: Summary) -> Iterator[str]:
    if all(len(group.seeds) == 1 for group in summary.groups):
        told = "ties are told by the test images alone" if summary.differences else "small differences may be chance"
        yield f"Each setting ran with one seed: {told}."


def _missing(summary: Summary) -> Iterator[str]:
    runs = [run for group in summary.groups for run in group.runs]
    if lacking := sum(run.scores is None for run in runs):
        who = "No run has" if lacking == len(runs) else f"{lacking} of {len(runs)} runs do not have"
        yield (
            f"{who} the scores of the test images beside the row, as earlier versions left them out: curves, intervals "
            "and the best and worst cases are missing there."
        )


def _parts(rows: list[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    parts: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        parts.setdefault(tuple(text(row, name) for name in names), []).append(row)
    return parts


def _values(rows: list[Row], name: str) -> list[str]:
    return _distinct(text(row, name) for row in rows)


def _distinct(values: Iterable[str]) -> list[str]:
    return sorted({value for value in values if value != NA})


def _some(values: list[str], limit: int = 4) -> str:
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(values[:limit]) + more
