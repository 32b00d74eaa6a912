"""The arithmetic of affine quantization (Jacob et al. 2018, arXiv 1712.05877, section 2.1): r = s (q - z).

Activations are asymmetric uint8: q in [0, 255], one scale and zero point for a tensor. Weights are symmetric int8:
q in [-127, 127], z = 0, one scale for each output channel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVELS = 255  # steps between the 256 values of uint8
WEIGHT_LEVELS = 127  # steps on each side of zero

Floats = NDArray[np.float64]


class Range(NamedTuple):
    """What is representable: low <= 0 <= high, so that zero, which padding and ReLU make, is exact."""

    low: float
    high: float


class Scale(NamedTuple):
    """The step s > 0, and z in [0, 255], the integer that means zero."""

    step: float
    zero_point: int


def activation_scale(bounds: Range) -> Scale:
    """s = (high - low) / 255 and z = round(-low / s); an empty range has s = 1, z = 0."""
    low, high = min(bounds.low, 0.0), max(bounds.high, 0.0)
    step = (high - low) / LEVELS
    if step < np.finfo(np.float32).tiny:
        return Scale(1.0, 0)
    return Scale(step, round(-low / step))


def quantize(values: Floats, scale: Scale) -> NDArray[np.uint8]:
    """q = clip(round(r / s) + z, 0, 255); halves are rounded to even, as ONNX's QuantizeLinear does."""
    levels: NDArray[np.uint8] = np.clip(np.rint(values / scale.step) + scale.zero_point, 0, LEVELS).astype(np.uint8)
    return levels


def dequantize(levels: NDArray[np.uint8], scale: Scale) -> Floats:
    """r = s (q - z)."""
    values: Floats = scale.step * (levels.astype(np.float64) - scale.zero_point)
    return values


def representable(scale: Scale) -> Range:
    """The smallest and the largest value that survive: s (0 - z) and s (255 - z), within s / 2 of the range asked for.

    Inside it the round trip errs by s / 2 at most; outside by the distance to it.
    """
    return Range(-scale.step * scale.zero_point, scale.step * (LEVELS - scale.zero_point))


def weight_scales(weights: Floats) -> Floats:
    """s_c = max |w_c| / 127 for each output channel c, shape (C,), of weights (C, ...); 1 for a channel of zeros."""
    scales: Floats = np.abs(weights).reshape(len(weights), -1).max(axis=1) / WEIGHT_LEVELS
    scales[scales < np.finfo(np.float32).tiny] = 1.0
    return scales


def round_trip_weights(weights: Floats) -> Floats:
    """s_c clip(round(w / s_c), -127, 127): each within s_c / 2 of its weight."""
    scales = weight_scales(weights).reshape(-1, *(1,) * (weights.ndim - 1))
    rounded: Floats = scales * np.clip(np.rint(weights / scales), -WEIGHT_LEVELS, WEIGHT_LEVELS)
    return rounded
