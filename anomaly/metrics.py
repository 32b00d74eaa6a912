"""Detection metrics. All take labels (True = defective) and scores (larger = stranger) and need no threshold.

All are exact: every distinct score is a threshold. Between the scores of two defective ones nothing changes but the
count of false alarms, so it is enough to count the good ones above each defective score, block by block. The
good pixels of a test split, a hundred million perhaps, are never copied or sorted whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as connected_components

from anomaly.errors import AnomalyError

Labels = NDArray[np.bool_]
Scores = NDArray[np.floating]

FPR_LIMIT = 0.3
_BLOCK = 1 << 22  # scores looked at together
_POINTS = 256  # of a curve that is kept
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


@dataclass(frozen=True)
class Metrics:
    """Values in [0, 1]. None where they are not defined: one class alone, or no masks."""

    image_auroc: float | None
    image_f1: float | None
    pixel_auroc: float | None
    pixel_f1: float | None
    aupro: float | None


class PixelCurve(NamedTuple):
    """One curve over all thresholds on pixels, from the highest: at each of T points what lies above the threshold.

    All four are (T,), in [0, 1], and but for `precision` they ascend.

    Attributes:
        fpr: share of the good pixels.
        tpr: share of the defective pixels, which is the recall.
        precision: share of defective ones among what lies above.
        overlap: mean share of a defect's region.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    precision: NDArray[np.float64]
    overlap: NDArray[np.float64]

    def thinned(self, points: int = _POINTS) -> PixelCurve:
        """At most `points` of it, spread evenly along the curve; its ends stay.

        The way along the curve is counted in all its directions, and false alarms up to `FPR_LIMIT` once more: there
        the curves of good detectors differ.
        """
        way = self.fpr + np.minimum(self.fpr, FPR_LIMIT) / FPR_LIMIT + self.tpr + self.overlap
        chosen = np.unique(np.searchsorted(way, np.linspace(way[0], way[-1], points)))
        return PixelCurve(*(values[chosen] for values in self))


def evaluate_scores(labels: Labels, scores: Scores, masks: Labels | None = None, maps: Scores | None = None) -> Metrics:
    """All metrics of a test split.

    Args:
        labels: (N,), scores: (N,).
        masks: (N, H, W) and maps: (N, H, W), or None where the dataset has no masks.
    """
    return evaluate_with_curve(labels, scores, masks, maps)[0]


def evaluate_with_curve(
    labels: Labels, scores: Scores, masks: Labels | None = None, maps: Scores | None = None
) -> tuple[Metrics, PixelCurve | None]:
    """`evaluate_scores`, and the thinned curve of the pixels; None where there are no masks to compare with."""
    image_auroc, image_f1 = _auroc_and_f1(labels, scores)
    if masks is None or maps is None or not masks.any() or masks.all():
        return Metrics(image_auroc, image_f1, None, None, None), None
    ranking = _rank(masks, maps)
    curve = _curve(masks, maps, ranking)
    metrics = Metrics(image_auroc, image_f1, ranking.auroc(), ranking.f1_max(), _aupro(curve, FPR_LIMIT))
    return metrics, curve.thinned()


def auroc(labels: Labels, scores: Scores) -> float:
    """Area under the ROC curve: the chance that a defective one scores above a good one, ties counting half.

    >>> auroc(np.array([False, True, False, True]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875

    Raises:
        AnomalyError: no defective, or no good one.
    """
    area, _ = _auroc_and_f1(labels, scores)
    if area is None:
        raise AnomalyError(f"AUROC needs good and defective samples, and {_only(labels)}")
    return area


def f1_max(labels: Labels, scores: Scores) -> float:
    """The largest F1 = 2 TP / (2 TP + FP + FN) over all thresholds.

    >>> f1_max(np.array([False, True, True]), np.array([0.1, 0.2, 0.3]))
    1.0

    Raises:
        AnomalyError: no defective, or no good one.
    """
    _, best = _auroc_and_f1(labels, scores)
    if best is None:
        raise AnomalyError(f"F1-max needs good and defective samples, and {_only(labels)}")
    return best


def aupro(masks: Labels, maps: Scores, *, fpr_limit: float = FPR_LIMIT) -> float:
    """Area under the per-region overlap curve up to a false positive rate, divided by that rate.

    The overlap of a region is the share of its pixels above the threshold; regions are 8-connected, and each
    weighs the same whatever its size (Bergmann et al. 2021, section 4.1). The curve is exact: every
    distinct score is a threshold, and the last piece is cut at `fpr_limit` by linear interpolation.

    Args:
        masks: (N, H, W), with at least one defective and one good pixel.
        maps: (N, H, W).
        fpr_limit: in (0, 1].
    """
    if not masks.any() or masks.all():
        raise AnomalyError(f"AUPRO needs good and defective pixels, and {_only(masks)}")
    return _aupro(_curve(masks, maps, _rank(masks, maps)), fpr_limit)


@dataclass(frozen=True)
class _Ranking:
    """Good and defective ones around each of the T distinct scores of defective ones, which ascend.

    Attributes:
        scores: (T,).
        hits: (T,) defective ones that score at least as much.
        alarms: (T,) good ones that score at least as much; above: (T,) more.
        good: good ones in all.
    """

    scores: Scores
    hits: NDArray[np.int64]
    alarms: NDArray[np.int64]
    above: NDArray[np.int64]
    good: int

    def auroc(self) -> float:
        own = -np.diff(self.hits, append=0)
        lower = self.good - (self.alarms + self.above) / 2  # ties count half
        return float((own * lower).sum() / (int(self.hits[0]) * self.good))

    def f1_max(self) -> float:
        # F1 falls where a threshold lets in good ones alone, so the best one is the score of a defective one.
        # 2 TP + FP + FN = (TP + FP) + (TP + FN)
        return float((2 * self.hits / (self.hits + self.alarms + self.hits[0])).max())


def _rank(labels: Labels, scores: Scores) -> _Ranking:
    flags, values = labels.ravel(), scores.ravel()
    if not all(np.isfinite(values[start : start + _BLOCK]).all() for start in range(0, values.size, _BLOCK)):
        raise AnomalyError("scores hold values that are not finite: the backbone's weights are damaged")
    thresholds, own = np.unique(values[flags], return_counts=True)
    below, upto = np.zeros(len(thresholds), dtype=np.int64), np.zeros(len(thresholds), dtype=np.int64)
    good = 0
    for start in range(0, values.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        ordered = np.sort(values[block][~flags[block]])
        below += np.searchsorted(ordered, thresholds, side="left")
        upto += np.searchsorted(ordered, thresholds, side="right")
        good += ordered.size
    return _Ranking(thresholds, np.cumsum(own[::-1])[::-1], good - below, good - upto, good)


def _curve(masks: Labels, maps: Scores, ranking: _Ranking) -> PixelCurve:
    weights = np.zeros(len(ranking.scores))  # shares of regions that stand at each threshold
    regions = 0
    for mask, scores in zip(masks, maps, strict=True):
        if mask.any():
            components, count = connected_components(mask, structure=_EIGHT_NEIGHBOURS)
            shares = 1 / np.bincount(components.ravel())[components[mask]]
            places = np.searchsorted(ranking.scores, scores[mask])
            np.add.at(weights, places, shares)
            regions += count
    reached = np.cumsum(weights[::-1]) / regions
    # At each threshold, from the highest: first the good ones above it, then also those equal to it, of either kind.
    alarms = _interleaved(ranking.above[::-1], ranking.alarms[::-1], last=ranking.good)
    hits = _interleaved(np.append(0, ranking.hits[:0:-1]), ranking.hits[::-1], last=int(ranking.hits[0]))
    overlap = _interleaved(np.append(0.0, reached[:-1]), reached, last=float(reached[-1]))
    above = alarms + hits
    precision = np.divide(hits, above, out=np.ones(len(above)), where=above > 0)
    return PixelCurve(alarms / ranking.good, hits / int(ranking.hits[0]), precision, overlap)


def _interleaved(first: NDArray[np.number], second: NDArray[np.number], *, last: float) -> NDArray[np.float64]:
    """0, then first and second in turn, then `last`."""
    return np.concatenate([[0.0], np.stack([first, second], axis=1).ravel(), [last]])


def _aupro(curve: PixelCurve, fpr_limit: float) -> float:
    fpr, overlap = curve.fpr, curve.overlap
    within = int(np.searchsorted(fpr, fpr_limit, side="right"))
    at_limit = np.interp(fpr_limit, fpr, overlap)
    return float(np.trapezoid(np.append(overlap[:within], at_limit), np.append(fpr[:within], fpr_limit)) / fpr_limit)


def _auroc_and_f1(labels: Labels, scores: Scores) -> tuple[float, float] | tuple[None, None]:
    if not labels.any() or labels.all():
        return None, None
    ranking = _rank(labels, scores)
    return ranking.auroc(), ranking.f1_max()


def _only(labels: Labels) -> str:
    return "all are defective" if labels.all() else "none is defective"
