"""The example strips: each test image beside its true defect and the heat map of every run."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from reports.cases import ALARM, cases
from reports.groups import Group
from reports.heatmap import Picture, jpeg, outlined, overlay
from reports.runs import Examples, Run, number, one_line, text
from reports.scores import Floats
from reports.series import series_of
from reports.summary import Summary

SIDES = (224, 160, 128, 96)  # pixels: the largest whose pictures have room on the page
ROOM = 1_200_000  # bytes of the page
MOST = 240  # pictures; beyond, rows, then settings, then categories are left out


@dataclass(frozen=True)
class Shot:
    """One picture of a strip. `source` is a data URI."""

    source: str
    description: str
    caption: str


@dataclass(frozen=True)
class Row:
    """One test image: the input, the truth where it is known, and one shot per run (None where it has none).

    `role` is why it was chosen (`reports.cases`), empty for an example of its kind.
    """

    name: str
    kind: str
    role: str
    shots: tuple[Shot | None, ...]


@dataclass(frozen=True)
class Strip:
    """The examples of one category; `titles` are (setting, result) above the columns of shots."""

    dataset: str
    category: str
    titles: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]

    @property
    def size(self) -> int:
        """Bytes of its pictures on the page."""
        return sum(len(shot.source) for row in self.rows for shot in row.shots if shot)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is to be shown of a category: the first of `shown` has the images, `names` are (name, role)."""

    dataset: str
    category: str
    shown: tuple[tuple[Group, Run, Examples], ...]
    names: tuple[tuple[str, str], ...]

    @property
    def pictures(self) -> int:
        return (len(self.shown) + 2) * len(self.names)


def strips(summary: Summary) -> list[Strip]:
    """One strip per (dataset, category) that has examples, its runs in the order of the table.

    Of several seeds the lowest is shown. The cases are those of the first run, which is the origin where that was run,
    and a run's heat maps are coloured on that run's own range. Where that makes more pictures than a page bears, first
    the examples that are no cases are left out, then all but one method, then all but three categories.
    """
    plans = _plans(summary)
    for fewer in (_cases_alone, _one_series, _three_categories):
        if sum(plan.pictures for plan in plans) > MOST:
            plans = fewer(plans)
    drawn: list[Strip] = []
    for side in SIDES:
        drawn = [_strip(plan, summary, side) for plan in plans]
        if sum(strip.size for strip in drawn) <= ROOM:
            break
    return drawn


def _plans(summary: Summary) -> list[_Plan]:
    found: dict[tuple[str, str], list[tuple[Group, Run, Examples]]] = {}
    for part in summary.parts:
        for run in sorted(part.runs, key=lambda run: number(run.row, "seed") or 0.0):
            if run.examples and run.examples.names:
                place = part.setting.dataset, text(run.row, "category")
                found.setdefault(place, []).append((part, run, run.examples))
                break
    return [_Plan(*place, tuple(shown), tuple(_names(shown))) for place, shown in sorted(found.items())]


def _names(shown: Sequence[tuple[Group, Run, Examples]]) -> Iterator[tuple[str, str]]:
    """The cases of the first run, then its other images; those of every run of earlier versions, which has no cases."""
    _, first, examples = shown[0]
    roles: dict[str, str] = {}
    if first.scores:
        chosen = cases(first.scores.labels, first.scores.scores)
        for role, place in chosen.items():
            if (name := first.scores.names[place]) in examples.names:
                roles.setdefault(name, role)
    yield from roles.items()
    others = [name for _, run, own in shown if run is first or not run.scores for name in own.names]
    yield from ((name, "") for name in dict.fromkeys(others) if name not in roles)


def _cases_alone(plans: list[_Plan]) -> list[_Plan]:
    def kept(plan: _Plan) -> tuple[tuple[str, str], ...]:
        return tuple((name, role) for name, role in plan.names if role not in ("", ALARM)) or plan.names[:3]

    return [replace(plan, names=kept(plan)) for plan in plans]


def _one_series(plans: list[_Plan]) -> list[_Plan]:
    """The dense networks, and of each architecture the cuts of the series that has most, the more accurate of two."""

    def kept(plan: _Plan) -> tuple[tuple[Group, Run, Examples], ...]:
        series: dict[str, dict[object, list[float]]] = {}
        for group, run, _ in plan.shown:
            if not group.setting.dense:
                own = series.setdefault(group.setting.arch, {}).setdefault(series_of(group), [])
                own.append(number(run.row, "image_auroc") or 0.0)
        best = {max(some, key=lambda each: (len(some[each]), sum(some[each]))) for some in series.values()}
        return tuple(each for each in plan.shown if each[0].setting.dense or series_of(each[0]) in best)

    return [replace(plan, shown=kept(plan)) for plan in plans]


def _three_categories(plans: list[_Plan]) -> list[_Plan]:
    """Of each dataset the categories of the best, the median and the worst image AUROC of the first run."""
    kept: list[_Plan] = []
    for dataset in dict.fromkeys(plan.dataset for plan in plans):
        here = [plan for plan in plans if plan.dataset == dataset]
        here.sort(key=lambda plan: number(plan.shown[0][1].row, "image_auroc") or 0.0)
        kept += dict.fromkeys([here[-1], here[(len(here) - 1) // 2], here[0]])
    return kept


def _strip(plan: _Plan, summary: Summary, side: int) -> Strip:
    labels = [summary.label(group) for group, _, _ in plan.shown]
    aurocs = [number(run.row, "image_auroc") for _, run, _ in plan.shown]
    results = ["" if auroc is None else f"AUROC {auroc:.3f}" for auroc in aurocs]
    titles = [("input", ""), ("defect", "as marked"), *zip(labels, results, strict=True)]
    rows = [_row(name, role, plan.shown, labels, side) for name, role in plan.names]
    return Strip(plan.dataset, plan.category, tuple(titles), tuple(rows))


def _row(name: str, role: str, shown: Sequence[tuple[Group, Run, Examples]], labels: Sequence[str], side: int) -> Row:
    source = next(examples for _, _, examples in shown if name in examples.names)
    place = source.names.index(name)
    image, kind, told = source.images[place], one_line(source.kinds[place]), one_line(name)
    shots: list[Shot | None] = [Shot(_uri(image, side), f"{told}, {kind}{f', {role}' if role else ''}", kind)]
    if source.masks is None:
        shots.append(None)
    else:
        mask = source.masks[place]
        shots.append(Shot(_uri(outlined(image, mask), side), f"{told} with its defect outlined", _area(mask.mean())))
    for (_, run, examples), label in zip(shown, labels, strict=True):
        if (seen := _seen(name, run, examples, image)) is None:
            shots.append(None)
            continue
        values, value = seen
        heat = overlay(image, values, low=examples.low, high=examples.high)
        shots.append(Shot(_uri(heat, side), f"heat map of {label} on {told}: score {value:.3g}", f"score {value:.3g}"))
    return Row(told, kind, role, tuple(shots))


def _seen(name: str, run: Run, examples: Examples, image: Picture) -> tuple[Floats, float] | None:
    """The run's heat map of an image at the image's size, and its score: an example's own map, else its small one."""
    if name in examples.names:
        at = examples.names.index(name)
        if examples.maps[at].shape == image.shape[:2]:
            return examples.maps[at], float(examples.scores[at])
    if run.scores is None or name not in run.scores.names:
        return None
    small = Image.fromarray(run.scores.map_of(name).astype(np.float32))
    large = small.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(large), float(run.scores.scores[run.scores.names.index(name)])


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
