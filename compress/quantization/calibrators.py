"""Calibrators: from the histogram of a tensor to the range that its 256 levels are spread over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.errors import CompressError, unknown
from compress.quantization.affine import LEVELS, Range, activation_scale, dequantize, quantize
from compress.quantization.histogram import Histogram

Calibrator = Callable[[Histogram], Range]

LEAST_IMAGES = 8
_SHRINKINGS = np.geomspace(1.0, 0.02, 61)  # shares of a bound that the searches try, each 6 % below the last


def minmax(histogram: Histogram) -> Range:
    """All that was seen. Nothing is clipped, and one outlier makes all steps coarse."""
    return Range(min(histogram.low, 0.0), max(histogram.high, 0.0))


def percentile(histogram: Histogram, percent: float = 99.999) -> Range:
    """The middle `percent` of all values: each side loses (100 - percent) / 2 per cent."""
    rest = (1 - percent / 100) / 2
    return Range(min(histogram.quantile(rest), 0.0), max(histogram.quantile(1 - rest), 0.0))


def mse(histogram: Histogram) -> Range:
    """The bounds with the least mean squared error of the round trip, clipping included.

    Starts at the extremes and shrinks the upper, then the lower bound to as little as 0.02 of what was seen, in steps
    of 6 per cent, twice over (a coordinate search of what Banner et al. 2019, arXiv 1810.05723, solve in closed form).
    """
    counts, centres = histogram.counts, np.clip(histogram.centres, histogram.low, histogram.high)

    def error(bounds: Range) -> float:
        scale = activation_scale(bounds)
        return float(counts @ (dequantize(quantize(centres, scale), scale) - centres) ** 2)

    return _best(minmax(histogram), error)


def entropy(histogram: Histogram) -> Range:
    """The bounds with the least Kullback-Leibler divergence of the clipped values' distribution from the rounded one's.

    TensorRT's calibration (Migacz 2017, "8-bit inference with TensorRT") with both bounds free: values beyond a bound
    count as the bound in P; Q spreads each level's mass evenly over those of its bins that hold anything. Exact zeros
    do not count: ReLU makes so many that spreading them over a level would outweigh everything else.
    """
    counts, centres = histogram.counts_but_zeros.astype(np.float64), histogram.centres

    def divergence(bounds: Range) -> float:
        scale = activation_scale(bounds)
        levels = quantize(np.clip(centres, bounds.low, bounds.high), scale)
        inside = (centres >= bounds.low) & (centres <= bounds.high)
        if not inside.any():
            return float("inf")
        reference = np.where(inside, counts, 0.0)
        first, last = np.flatnonzero(inside)[[0, -1]]
        reference[first] += counts[:first].sum()
        reference[last] += counts[last + 1 :].sum()
        filled = inside & (counts > 0)
        mass = np.bincount(levels[filled], weights=counts[filled], minlength=LEVELS + 1)
        share = mass / np.maximum(np.bincount(levels[filled], minlength=LEVELS + 1), 1)
        return _kullback_leibler(reference, np.where(filled, share[levels], 0.0))

    return _best(minmax(histogram), divergence)


def _kullback_leibler(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Sum of p log(p / q); where q is nothing and p is something, the two share no support."""
    p, q = reference / reference.sum(), other / max(other.sum(), 1e-300)
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / np.maximum(q[there], 1e-12))))


def _best(widest: Range, cost: Callable[[Range], float]) -> Range:
    best = widest
    for _ in range(2):
        best = min((Range(best.low, widest.high * share) for share in _SHRINKINGS), key=cost)
        if widest.low < 0:
            best = min((Range(widest.low * share, best.high) for share in _SHRINKINGS), key=cost)
        else:
            break
    return best


CALIBRATORS: dict[str, Calibrator] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}
"""By name, how the range of an activation is found from the histogram of its values."""


@dataclass(frozen=True)
class Calibration:
    """How the ranges of activations are found.

    Attributes:
        method: a key of `CALIBRATORS`.
        percentile: the share of all values that method `percentile` keeps, in [90, 100] per cent.
        count: images at most, spread evenly over those given; 8 more are kept for the check.
    """

    method: str = "percentile"
    percentile: float = 99.999
    count: int = 128

    def __post_init__(self) -> None:
        if self.method not in CALIBRATORS:
            raise unknown("calibration", self.method, CALIBRATORS, "percentile is the default")
        if not 90 <= self.percentile <= 100:
            raise CompressError(f"percentile {self.percentile} is outside 90 to 100 per cent: 99.999 is the default")
        if self.count < LEAST_IMAGES:
            raise CompressError(f"{self.count} images calibrate nothing well: give at least {LEAST_IMAGES}")

    def range_of(self, histogram: Histogram) -> Range:
        """The range that a tensor's 256 levels are spread over."""
        if self.method == "percentile":
            return percentile(histogram, self.percentile)
        return CALIBRATORS[self.method](histogram)
