"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): weights are rounded so that what a layer computes changes least.

The nearest level of each weight alone is not the best choice for all of them together: the errors of weights whose
inputs go together add up. With H = E[x x^T] of the inputs x that a filter w sees, the mean squared change of what it
computes is (w' - w) H (w' - w)^T. Weights are rounded one after another, and the error of each is made up for by those
that are still to come (the paper's equations 2 and 3, and its Cholesky form): with U^T U = H^-1, U upper triangular,

    e = (w_i - w'_i) / U_ii,    w_j <- w_j - e U_ij    for j > i.

All filters of a layer share H and go at once. Weights with the strongest inputs come first, while there are most left
to make up for them (the paper's `act-order`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.quantization.affine import WEIGHT_LEVELS, round_trip_weights, weight_scales

Floats = NDArray[np.float64]

DAMPING = 0.01  # of the mean of H's diagonal, added to it: the paper's
_TOGETHER = 128  # weights whose errors are passed on at once to all that come later


def rounded_filters(model: onnx.ModelProto, moments: Mapping[str, Floats]) -> dict[str, Floats]:
    """The constant weights of each convolution of `model`, by their name, on the levels of int8.

    Args:
        moments: H of the filters' inputs, by the weights' name (see `second_moments`); the rest go to their nearest.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    names = dict.fromkeys(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    found: dict[str, Floats] = {}
    for name in names:
        if name in tensors:
            weights = numpy_helper.to_array(tensors[name]).astype(np.float64)
            found[name] = rounded_together(weights, moments[name]) if name in moments else round_trip_weights(weights)
    return found


def rounded_together(weights: Floats, moments: Floats) -> Floats:
    """Weights (C_out, ...) on the levels of `affine.round_trip_weights`, with the same scales.

    Args:
        moments: (G, K, K), H of each of G groups of filters with K weights each.
    """
    groups, size = moments.shape[:2]
    scales = weight_scales(weights).reshape(groups, -1, 1)
    left = weights.reshape(groups, -1, size).copy()
    # The largest weight of a filter, which sets its scale, lies on a level and stays there.
    largest = np.abs(left).argmax(axis=2, keepdims=True)
    fixed = np.take_along_axis(left, largest, axis=2)
    order = np.argsort(-np.diagonal(moments, axis1=1, axis2=2), axis=1, kind="stable")
    place = np.argsort(order, axis=1)
    left = np.take_along_axis(left, order[:, None, :], axis=2)
    largest = np.take_along_axis(np.broadcast_to(place[:, None, :], left.shape), largest, axis=2)
    upper = _upper(np.take_along_axis(np.take_along_axis(moments, order[:, :, None], 1), order[:, None, :], 2))
    result = np.empty_like(left)
    for start in range(0, size, _TOGETHER):
        stop = min(start + _TOGETHER, size)
        errors = np.empty((*left.shape[:2], stop - start))
        for i in range(start, stop):
            levels = np.clip(np.rint(left[:, :, i] / scales[:, :, 0]), -WEIGHT_LEVELS, WEIGHT_LEVELS)
            result[:, :, i] = scales[:, :, 0] * levels
            error = (left[:, :, i] - result[:, :, i]) / upper[:, None, i, i]
            left[:, :, i:stop] -= error[:, :, None] * upper[:, None, i, i:stop]
            np.put_along_axis(left, largest, fixed, axis=2)
            errors[:, :, i - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
        np.put_along_axis(left, largest, fixed, axis=2)
    back: Floats = np.take_along_axis(result, place[:, None, :], axis=2).reshape(weights.shape)
    return back


def _upper(moments: Floats) -> Floats:
    """U of each group, of the damped H; that of inputs that are always zero is taken for 1."""
    size = moments.shape[1]
    strength = np.trace(moments, axis1=1, axis2=2) / size
    damping = np.where(strength > 0, DAMPING * strength, 1.0)
    inverse = np.linalg.inv(moments + damping[:, None, None] * np.eye(size))
    upper: Floats = np.linalg.cholesky(inverse).swapaxes(1, 2)
    return upper
