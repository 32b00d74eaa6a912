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

from compress.quantization.affine import round_trip_weights


def corrected(
    model: onnx.ModelProto, means: Mapping[str, NDArray[np.float64]], float_nodes: Collection[str] = ()
) -> onnx.ModelProto:
    """A copy of `model` whose convolutions, but for `float_nodes`, have the biases that suit rounded weights.

    Args:
        means: E[x] of each channel (C,) of each value that a convolution reads.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in copied.graph.initializer}
    for node in copied.graph.node:
        if node.op_type != "Conv" or node.name in float_nodes or node.input[1] not in tensors:
            continue
        weights = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)
        shift = mean_shift(weights, means[node.input[0]])
        if len(node.input) > 2 and node.input[2]:
            bias = tensors[node.input[2]]
            bias.CopyFrom(_tensor(numpy_helper.to_array(bias) - shift, bias.name))
        else:
            name = f"{node.input[1]}_bias"
            copied.graph.initializer.append(_tensor(-shift, name))
            node.input[:] = [*node.input[:2], name]
    return copied


def mean_shift(weights: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """dW E[x], shape (C_out,), of weights (C_out, C_in / groups, ...) and channel means (C_in,).

    Zeros of the padding are taken for the mean, which is exact away from the border.
    """
    rounding = (round_trip_weights(weights) - weights).reshape(*weights.shape[:2], -1).sum(axis=2)
    groups = len(means) // weights.shape[1]
    by_output = np.repeat(means.reshape(groups, -1), len(weights) // groups, axis=0)
    shift: NDArray[np.float64] = (rounding * by_output).sum(axis=1)
    return shift


def _tensor(values: NDArray[np.float64], name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)
