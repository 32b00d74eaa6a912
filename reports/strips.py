"""The example strips: each test image beside its true defect and the heat map of every run."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.heatmap import Picture, jpeg, outlined, overlay
from reports.runs import Examples, Run, number, one_line, text
from reports.summary import Setting, Summary, setting_of

SIDES = ((160, 224), (400, 160))  # up to so many pictures on the page, each at most so many pixels wide and high
SMALLEST = 112


@dataclass(frozen=True)
class Shot:
    """One picture of a strip. `source` is a data URI."""

    source: str
    description: str
    caption: str


@dataclass(frozen=True)
class Row:
    """One test image: the input, the truth where it is known, and one shot per run (None where it has none)."""

    name: str
    kind: str
    shots: tuple[Shot | None, ...]


@dataclass(frozen=True)
class Strip:
    """The examples of one category; `titles` are (setting, result) above the columns of shots."""

    dataset: str
    category: str
    titles: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]


def strips(runs: Sequence[Run], summary: Summary) -> list[Strip]:
    """One strip per (dataset, category) that has examples, its runs in the order of the table.

    Of several seeds the first is shown. A run's heat maps are coloured on that run's own range.
    """
    places = sorted({_place(run) for run in runs if run.examples and run.examples.names})
    order = {group.setting: position for position, group in enumerate(summary.groups)}
    chosen = {place: _first_seeds([run for run in runs if _place(run) == place], order) for place in places}
    pictures = sum((len(some) + 2) * max(len(each.names) for _, each in some) for some in chosen.values())
    side = next((side for limit, side in SIDES if pictures <= limit), SMALLEST)
    return [_strip(place, some, summary, side) for place, some in chosen.items()]


def _place(run: Run) -> tuple[str, str]:
    return text(run.row, "dataset"), text(run.row, "category")


def _first_seeds(runs: Iterable[Run], order: dict[Setting, int]) -> list[tuple[Run, Examples]]:
    """Per setting the run of the lowest seed that has examples, in the order of the table."""
    found: dict[Setting, tuple[Run, Examples]] = {}
    for run in sorted(runs, key=lambda run: number(run.row, "seed") or 0.0):
        if run.examples and run.examples.names:
            found.setdefault(setting_of(run.row), (run, run.examples))
    return [found[setting] for setting in sorted(found, key=lambda setting: order[setting])]


def _strip(place: tuple[str, str], runs: list[tuple[Run, Examples]], summary: Summary, side: int) -> Strip:
    labels = [setting_of(run.row).label(summary.shown) for run, _ in runs]
    aurocs = [number(run.row, "image_auroc") for run, _ in runs]
    results = ["" if auroc is None else f"AUROC {auroc:.3f}" for auroc in aurocs]
    titles = [("input", ""), ("defect", "as marked"), *zip(labels, results, strict=True)]
    names = list(dict.fromkeys(name for _, examples in runs for name in examples.names))
    rows = [_row(name, [examples for _, examples in runs], labels, side) for name in names]
    return Strip(*place, tuple(titles), tuple(rows))


def _row(name: str, runs: Sequence[Examples], labels: Sequence[str], side: int) -> Row:
    source = next(examples for examples in runs if name in examples.names)
    place = source.names.index(name)
    image, kind, shown = source.images[place], one_line(source.kinds[place]), one_line(name)
    shots: list[Shot | None] = [Shot(_uri(image, side), f"{shown}, {kind}", kind)]
    if source.masks is None:
        shots.append(None)
    else:
        mask = source.masks[place]
        shots.append(Shot(_uri(outlined(image, mask), side), f"{shown} with its defect outlined", _area(mask.mean())))
    for examples, label in zip(runs, labels, strict=True):
        if name not in examples.names:
            shots.append(None)
            continue
        at = examples.names.index(name)
        heat = overlay(examples.images[at], examples.maps[at], low=examples.low, high=examples.high)
        score = f"{float(examples.scores[at]):.3g}"
        shots.append(Shot(_uri(heat, side), f"heat map of {label} on {shown}: score {score}", f"score {score}"))
    return Row(shown, kind, tuple(shots))


def _area(share: float) -> str:
    """
    >>> _area(0.0), _area(0.0002), _area(0.039)
    ('no defect', 'under 0.1 % of image', '3.9 % of image')
    """
    if share == 0:
        return "no defect"
    return "under 0.1 % of image" if share < 0.001 else f"{100 * share:.1f} % of image"


def _uri(picture: Picture, side: int) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture, side=side)).decode("ascii")
