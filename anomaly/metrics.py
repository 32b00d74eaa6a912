"""Detection metrics. All take labels (True = defective) and scores (larger = stranger) and need no threshold.

Each sorts once and reads everything off the cumulative counts at the distinct scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as connected_components

from anomaly.errors import AnomalyError

Labels = NDArray[np.bool_]
Scores = NDArray[np.floating]

FPR_LIMIT = 0.3
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


@dataclass(frozen=True)
class Metrics:
    """Values in [0, 1]. None where they are not defined: one class alone, or no masks."""

    image_auroc: float | None
    image_f1: float | None
    pixel_auroc: float | None
    pixel_f1: float | None
    aupro: float | None


def evaluate_scores(labels: Labels, scores: Scores, masks: Labels | None = None, maps: Scores | None = None) -> Metrics:
    """All metrics of a test split.

    Args:
        labels: (N,), scores: (N,).
        masks: (N, H, W) and maps: (N, H, W), or None where the dataset has no masks.
    """
    image_auroc, image_f1 = _auroc_and_f1(labels, scores)
    if masks is None or maps is None:
        return Metrics(image_auroc, image_f1, None, None, None)
    order = _descending(maps)
    pixel_auroc, pixel_f1 = _auroc_and_f1(masks, maps, order)
    both = pixel_auroc is not None
    return Metrics(image_auroc, image_f1, pixel_auroc, pixel_f1, aupro(masks, maps, order=order) if both else None)


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


def aupro(masks: Labels, maps: Scores, *, fpr_limit: float = FPR_LIMIT, order: NDArray[np.intp] | None = None) -> float:
    """Area under the per-region overlap curve up to a false positive rate, divided by that rate.

    The overlap of a region is the share of its pixels above the threshold; regions are 8-connected, and each
    weighs the same whatever its size (Bergmann et al. 2021, section 4.1). The curve is exact: every
    distinct score is a threshold, and the last piece is cut at `fpr_limit` by linear interpolation.

    Args:
        masks: (N, H, W), with at least one defective and one good pixel.
        maps: (N, H, W).
        fpr_limit: in (0, 1].
        order: indices that sort the flattened maps descending, if at hand.
    """
    weights = np.zeros(masks.size, dtype=np.float64).reshape(masks.shape)
    regions = 0
    for mask, weight in zip(masks, weights, strict=True):
        if not mask.any():
            continue
        components, count = connected_components(mask, structure=_EIGHT_NEIGHBOURS)
        sizes = np.bincount(components.ravel())
        weight[mask] = 1 / sizes[components[mask]]
        regions += count
    if not regions or masks.all():
        raise AnomalyError(f"AUPRO needs good and defective pixels, and {_only(masks)}")
    order = _descending(maps) if order is None else order
    last = _last_of_ties(maps.ravel()[order])
    overlap = np.cumsum(weights.ravel()[order])[last] / regions
    good = ~masks.ravel()[order]
    fpr = np.cumsum(good)[last] / good.sum()
    fpr, overlap = np.concatenate([[0.0], fpr]), np.concatenate([[0.0], overlap])
    within = int(np.searchsorted(fpr, fpr_limit, side="right"))
    at_limit = np.interp(fpr_limit, fpr, overlap)
    return float(np.trapezoid(np.append(overlap[:within], at_limit), np.append(fpr[:within], fpr_limit)) / fpr_limit)


def _auroc_and_f1(
    labels: Labels, scores: Scores, order: NDArray[np.intp] | None = None
) -> tuple[float, float] | tuple[None, None]:
    positives = int(labels.sum())
    negatives = labels.size - positives
    if not positives or not negatives:
        return None, None
    order = _descending(scores) if order is None else order
    last = _last_of_ties(scores.ravel()[order])
    hits = np.cumsum(labels.ravel()[order])[last]  # true positives at each distinct threshold
    alarms = last + 1 - hits  # false positives
    tpr = np.concatenate([[0.0], hits / positives])
    fpr = np.concatenate([[0.0], alarms / negatives])
    f1 = 2 * hits / (hits + alarms + positives)  # 2 TP + FP + FN = (TP + FP) + (TP + FN)
    return float(np.trapezoid(tpr, fpr)), float(f1.max())


def _descending(scores: Scores) -> NDArray[np.intp]:
    if not np.isfinite(scores).all():
        raise AnomalyError("scores hold values that are not finite: the backbone's weights are damaged")
    return np.argsort(-scores.ravel())


def _last_of_ties(ordered: Scores) -> NDArray[np.intp]:
    """Positions of the last of each run of equal values: only there does a threshold stand."""
    return np.append(np.flatnonzero(np.diff(ordered)), ordered.size - 1)


def _only(labels: Labels) -> str:
    return "all are defective" if labels.all() else "none is defective"
