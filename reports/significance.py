"""Whether one detector ranks images better than another, or chance: the paired bootstrap over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
import numpy.typing as npt

from reports.errors import ReportError
from reports.scores import Floats, Labels

RESAMPLES = 2000
BLOCK = 1000  # resamples in memory at a time, each block with random numbers of its own: a part of the result
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Paired:
    """What two detectors made of the same N images of one category: labels (N,), scores (runs, N) of each."""

    labels: Labels
    first: Floats
    second: Floats

    def __post_init__(self) -> None:
        for scores in (self.first, self.second):
            if scores.ndim != 2 or scores.shape[1] != len(self.labels) or not len(scores):
                raise ReportError(f"scores of shape {scores.shape} for {len(self.labels)} labels: give (runs, images)")
        if self.labels.all() or not self.labels.any():
            raise ReportError("AUROC needs good and defective images: one kind is missing")


@dataclass(frozen=True)
class AurocDifference:
    """The image AUROC of `second` less that of `first`, each a mean over categories of the mean over runs.

    `low` and `high` bound the 95 % interval. `p` is that kind of interval inverted: 1 - p is the highest confidence at
    which it leaves zero out. That is twice the share of resamples on the other side of zero, never below
    2 / (resamples + 1), and no test whose resamples are drawn between equals.
    """

    first: float
    second: float
    low: float
    high: float
    p: float
    images: int

    @property
    def value(self) -> float:
        return self.second - self.first

    @property
    def tie(self) -> bool:
        """Whether zero lies within the interval: other images might have turned the order round."""
        return self.low <= 0 <= self.high


def auroc(labels: Labels, scores: Floats) -> float:
    """The chance that a defective image scores above a good one, ties counting half.

    >>> auroc(np.array([False, True, False, True]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    once = np.ones((1, 1), dtype=np.int64)
    good, defective = (np.repeat(once, int(count), axis=1) for count in ((~labels).sum(), labels.sum()))
    return float(_aurocs(labels, scores, good, defective)[0])


def paired_difference(categories: Sequence[Paired], *, resamples: int = RESAMPLES, seed: int = 0) -> AurocDifference:
    """Bootstrap the AUROC difference, the same resampled images for both detectors (Efron & Tibshirani 1993, 16.4).

    Good and defective images are drawn apart, so that each resample has as many of each as the test split; categories
    are drawn apart and weigh the same. The interval is that of percentiles. What another seed of the training
    or the coreset would change is not in it.

    Args:
        resamples: 1 or more, computed by thousands; the width of the interval moves by 1 to 2 % between draws of 2,000.

    Raises:
        ReportError: no category.
    """
    if not categories:
        raise ReportError("0 categories to compare, 1 needed: both must have scores of the same images")
    sizes = [min(BLOCK, resamples - start) for start in range(0, resamples, BLOCK)]
    draws = np.concatenate([_block(categories, size, seed, block) for block, size in enumerate(sizes)])
    first = fmean(_over_runs(pair.labels, pair.first) for pair in categories)
    second = fmean(_over_runs(pair.labels, pair.second) for pair in categories)
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [outside, 1 - outside])
    opposite = min((draws <= 0).sum(), (draws >= 0).sum())
    p = min(1.0, 2 * (int(opposite) + 1) / (resamples + 1))
    images = sum(len(pair.labels) for pair in categories)
    return AurocDifference(first, second, float(low), float(high), p, images)


def _over_runs(labels: Labels, scores: Floats) -> float:
    return fmean(auroc(labels, run) for run in scores)


def _block(categories: Sequence[Paired], resamples: int, seed: int, block: int) -> Floats:
    """The AUROC differences (resamples,) of one block."""
    draws = np.zeros(resamples)
    for place, pair in enumerate(categories):
        for sign, scores in ((-1, pair.first), (1, pair.second)):
            for run in scores:
                asked = (pair.labels.tobytes(), run.tobytes(), run.dtype.str, resamples, seed, place, block)
                draws += sign * _resampled(*asked) / len(scores) / len(categories)
    return draws


@lru_cache(maxsize=512)  # an origin is held against all its settings; 8 kB each, and 5 to 9 bytes for an image
def _resampled(labelled: bytes, scored: bytes, kind: str, resamples: int, seed: int, place: int, block: int) -> Floats:
    """The AUROC (resamples,) of a run in the category of that place, given as what a cache can be asked by."""
    labels, scores = np.frombuffer(labelled, dtype=bool), np.frombuffer(scored, dtype=kind)
    counts = int((~labels).sum()), int(labels.sum())
    good, defective = (_draws(count, resamples, seed, 2 * place + which, block) for which, count in enumerate(counts))
    return _aurocs(labels, scores, good, defective)


def _aurocs(
    labels: Labels, scores: Floats, good: npt.NDArray[np.int64], defective: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The AUROC (B,) of B resamples that take each good image good[b, i] times and each defective defective[b, j]."""
    order = np.argsort(scores[~labels], kind="stable")
    ordered = scores[~labels][order]
    upto = np.zeros((len(good), len(ordered) + 1), dtype=np.int64)
    np.cumsum(good[:, order], axis=1, out=upto[:, 1:])
    below, equal = (np.searchsorted(ordered, scores[labels], side=side) for side in ("left", "right"))
    beaten = (upto[:, below] + upto[:, equal]) / 2
    return np.asarray((beaten * defective).sum(axis=1) / (len(ordered) * defective.shape[1]))


@lru_cache(maxsize=64)
def _draws(count: int, resamples: int, seed: int, stream: int, block: int) -> npt.NDArray[np.int64]:
    """How often each of `count` images is drawn, (resamples, count)."""
    generator = np.random.default_rng([seed, stream, block])
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples)
