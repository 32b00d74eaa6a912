"""Calibrators: from the histogram of a tensor to the range that its 256 levels are spread over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from compress.quantization.affine import LEVELS, Range, activation_scale, dequantize, quantize
from compress.quantization.histogram import Histogram

Calibrator = Callable[[Histogram], Range]

_SHRINKINGS = np.linspace(1.0, 0.1, 46)  # shares of a bound that the searches try: steps of 0.02


def minmax(histogram: Histogram) -> Range:
    """All that was seen. Nothing is clipped, and one outlier makes all steps coarse."""
    return Range(min(histogram.low, 0.0), max(histogram.high, 0.0))


def percentile(histogram: Histogram, percent: float) -> Range:
    """The middle `percent` of all values: each side loses (100 - percent) / 2 per cent."""
    rest = (1 - percent / 100) / 2
    return Range(min(histogram.quantile(rest), 0.0), max(histogram.quantile(1 - rest), 0.0))


def mse(histogram: Histogram) -> Range:
    """The bounds with the least mean squared error of the round trip, clipping included.

    Starts at the extremes and shrinks the upper, then the lower bound to 0.1 of themselves in steps of 0.02 of what was
    seen, twice over (a coordinate search of what Banner et al. 2019, arXiv 1810.05723, solve in closed form).
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


def calibrator(name: str, percent: float) -> Calibrator:
    """The calibrator of that name; `percent` is for `percentile` alone."""
    return partial(percentile, percent=percent) if name == "percentile" else CALIBRATORS[name]


CALIBRATORS: dict[str, Calibrator] = {
    "minmax": minmax,
    "percentile": partial(percentile, percent=99.99),
    "entropy": entropy,
    "mse": mse,
}
