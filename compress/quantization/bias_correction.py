"""Bias correction (Nagel et al. 2019, arXiv 1906.04721, section 4.2): what rounding the weights shifts is put right.

Rounded weights W' = W + dW move a channel's mean output by dW E[x]. In depthwise layers, whose channels have nine
weights and large means, this is most of the error. The bias takes it back: b' = b - dW E[x].
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def corrected(
    model: onnx.ModelProto,
    filters: Mapping[str, NDArray[np.float64]],
    means: Mapping[str, NDArray[np.float64]],
    float_nodes: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of `model` whose convolutions, but for `float_nodes`, have rounded weights and the biases that suit them.

    Args:
        filters: the rounded weights, by the name of those that they replace.
        means: E[x] of each channel (C,) of each value that a convolution reads.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in copied.graph.initializer}
    exact = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in filters}
    for node in copied.graph.node:
        if node.op_type != "Conv" or node.name in float_nodes or node.input[1] not in filters:
            continue
        name = node.input[1]
        tensors[name].CopyFrom(_tensor(filters[name], name))
        shift = mean_shift(filters[name] - exact[name], means[node.input[0]])
        if len(node.input) > 2 and node.input[2]:
            bias = tensors[node.input[2]]
            bias.CopyFrom(_tensor(numpy_helper.to_array(bias) - shift, bias.name))
        else:
            added = f"{name}_bias"
            copied.graph.initializer.append(_tensor(-shift, added))
            node.input[:] = [*node.input[:2], added]
    return copied


def mean_shift(rounding: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """dW E[x], shape (C_out,), of errors dW (C_out, C_in / groups, ...) of weights and channel means (C_in,).

    Zeros of the padding are taken for the mean, which is exact away from the border.
    """
    by_input = rounding.reshape(*rounding.shape[:2], -1).sum(axis=2)
    groups = len(means) // rounding.shape[1]
    by_output = np.repeat(means.reshape(groups, -1), len(rounding) // groups, axis=0)
    shift: NDArray[np.float64] = (by_input * by_output).sum(axis=1)
    return shift


def _tensor(values: NDArray[np.float64], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)
