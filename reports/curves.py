"""ROC and precision-recall curves of images, ROC and per-region overlap of pixels: per category, and as their mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reports.groups import Group
from reports.runs import Run, text
from reports.scores import CURVE, Floats, Labels, Scores

FPR_LIMIT = 0.3  # where the AUPRO ends


@dataclass(frozen=True, eq=False)
class CurveKind:
    """`x` is the grid (points,) in ascending order on which every curve of the kind is told."""

    name: str
    title: str
    x_title: str
    y_title: str
    x: Floats
    chance: bool  # whether the diagonal is what guessing gives


_ALL = np.linspace(0, 1, 81)
_DENSE_AT_0 = _ALL**2  # where false alarms are few the curves of good detectors differ
_TO_LIMIT = _DENSE_AT_0 * FPR_LIMIT
_ALARMS, _RECALL = "false alarms: share of good {}", "found: share of defective {}"
KINDS = (
    CurveKind("roc", "ROC, images", _ALARMS.format("images"), _RECALL.format("images"), _DENSE_AT_0, True),
    CurveKind("pr", "Precision and recall, images", _RECALL.format("images"), "precision", _ALL, False),
    CurveKind("pixel_roc", "ROC, pixels", _ALARMS.format("pixels"), _RECALL.format("pixels"), _DENSE_AT_0, True),
    CurveKind("pro", "PRO, pixels", _ALARMS.format("pixels"), "overlap: mean share of a defect", _TO_LIMIT, False),
)


def curves_of(runs: Iterable[Run]) -> dict[str, Floats]:
    """The mean curve of the runs that have scores, by kind: y on the kind's grid.

    Curves are averaged upright, y at equal x (Fawcett 2006, section 9.1).
    """
    found: dict[str, list[Floats]] = {}
    for run in runs:
        for name, y in _curves(run.scores).items() if run.scores else ():
            found.setdefault(name, []).append(y)
    return {kind.name: np.mean(found[kind.name], axis=0) for kind in KINDS if kind.name in found}


def has_curves(group: Group) -> bool:
    """Whether `category_curves` of the group has any; without making them, which takes time."""
    return any(run.scores and (run.scores.two_sided or run.scores.pixels is not None) for run in group.runs)


def category_curves(group: Group) -> dict[str, dict[str, Floats]]:
    """The curves of each category that has any."""
    per_category = {
        category: curves_of(run for run in group.runs if text(run.row, "category") == category)
        for category in group.categories
    }
    return {category: curves for category, curves in per_category.items() if curves}


def mean_curves(parts: Iterable[dict[str, Floats]]) -> dict[str, Floats]:
    """The mean over categories, each weighing the same, of what each has."""
    listed = list(parts)
    having = {kind.name: [part[kind.name] for part in listed if kind.name in part] for kind in KINDS}
    return {name: np.mean(curves, axis=0) for name, curves in having.items() if curves}


def roc(labels: Labels, scores: Floats) -> tuple[Floats, Floats, Floats]:
    """False and true positive rate and precision, each (T + 1,), over the T distinct scores from the highest.

    >>> fpr, tpr, precision = roc(np.array([False, True, True]), np.array([0.2, 0.1, 0.3]))
    >>> fpr.tolist(), tpr.tolist(), precision.tolist()
    ([0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0], [1.0, 1.0, 0.5, 0.6666666666666666])
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores pass together
    hits = np.append(0, np.cumsum(labels[order])[last])
    alarms = np.append(0, np.cumsum(~labels[order])[last])
    above = hits + alarms
    precision = np.divide(hits, above, out=np.ones(len(above)), where=above > 0)
    return alarms / max(1, alarms[-1]), hits / max(1, hits[-1]), precision


def _curves(scores: Scores) -> dict[str, Floats]:
    found = {}
    grids = {kind.name: kind.x for kind in KINDS}
    if scores.two_sided:
        fpr, tpr, precision = roc(scores.labels, scores.scores)
        found["roc"] = _upright(grids["roc"], fpr, tpr)
        found["pr"] = precision[np.searchsorted(tpr, np.maximum(grids["pr"], 1e-9) - 1e-9)]
    if scores.pixels is not None:
        curve = dict(zip(CURVE, scores.pixels.astype(np.float64), strict=True))
        found["pixel_roc"] = _upright(grids["pixel_roc"], curve["fpr"], curve["tpr"])
        found["pro"] = _upright(grids["pro"], curve["fpr"], curve["overlap"])
    return {name: found[name] for name in grids if name in found}


def _upright(grid: Floats, x: Floats, y: Floats) -> Floats:
    """y on the grid; where x stands still, its highest y."""
    last = np.append(np.flatnonzero(np.diff(x)), len(x) - 1)
    return np.asarray(np.interp(grid, x[last], y[last]))
