"""The levels of the rounded input are those of the pixels, so that rounding it loses nothing.

A normalised image x = (v / 255 - mean) / std, v = 0, 1, ... 255, has no more levels than uint8. But its channels differ
in mean and deviation: with one scale for the tensor its levels are not the pixels', and rounding errs by up to half a
grey level, on surfaces whose whole contrast may be a few of them.
So the first convolution reads pixels p = std x + mean in [0, 1] with the step 1 / 255, and its weights normalise:

    sum_c w_c x_c + b = sum_c (w_c / std_c) p_c + b - sum_c w_c mean_c / std_c.

The zeros that it pads a normalised image with are no zeros among the pixels: the padding goes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from compress.backbone import BackboneSpec
from compress.export.graph import INPUT
from compress.quantization.affine import Range
from compress.quantization.qdq import sort_nodes

PIXELS = "pixels"
UNIT = Range(0.0, 1.0)
_PADDED, _SCALED = f"{PIXELS}/padded", f"{PIXELS}/scaled"
_STD, _MEAN = f"{PIXELS}/std", f"{PIXELS}/mean"
_HALFWAY = 1e-3  # grey levels; float32 errs by a hundredth of that
FLOAT_NODES = (f"{PIXELS}/pad", f"{PIXELS}/scale", f"{PIXELS}/shift")


def over_pixels(model: onnx.ModelProto, spec: BackboneSpec) -> onnx.ModelProto:
    """A copy of `model` that computes the same by way of the value `pixels`, which `FLOAT_NODES` make.

    Just a copy where the input, or the input padded with zeros, is not read by one convolution alone, or where that
    convolution has groups, or weights or a bias that are computed or that other nodes read too.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in copied.graph.initializer}
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items() if tensor.name}
    source = INPUT
    reader = _only_reader(copied.graph, source)
    if reader is not None and _pads_with_zeros(reader, arrays):
        source = reader.output[0]
        reader = _only_reader(copied.graph, source)
    if reader is None or reader.op_type != "Conv" or _attribute(reader, "group", [1]) != [1]:
        return copied
    own = [name for name in reader.input[1:] if name]  # the weights and, where there is one, the bias
    if any(name not in arrays or len(_readers(copied.graph, name)) > 1 for name in own):
        return copied
    mean, std = (np.reshape(np.asarray(values, np.float64), (1, 3, 1, 1)) for values in (spec.mean, spec.std))
    weights = arrays[reader.input[1]] / std
    bias = -(weights * mean).sum(axis=(1, 2, 3))
    for name in own[1:]:
        bias += arrays[name]
        copied.graph.initializer.remove(tensors[name])
    tensors[reader.input[1]].CopyFrom(numpy_helper.from_array(weights.astype(np.float32), reader.input[1]))
    top, left, bottom, right = _attribute(reader, "pads", [0] * 4)
    kept = [each for each in reader.attribute if each.name != "pads"]
    del reader.attribute[:]
    reader.attribute.extend(kept)
    reader.input[:] = [PIXELS, reader.input[1], f"{PIXELS}/bias"]
    constants = {
        f"{PIXELS}/bias": bias.astype(np.float32),
        f"{PIXELS}/pads": np.array([0, 0, top, left, 0, 0, bottom, right], np.int64),
        _STD: std.astype(np.float32),
        _MEAN: mean.astype(np.float32),
    }
    copied.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    _, pads, deviation, offset = constants
    pad, scale, shift = FLOAT_NODES
    copied.graph.node.extend(
        [
            helper.make_node("Pad", [source, pads], [_PADDED], pad),
            helper.make_node("Mul", [_PADDED, deviation], [_SCALED], scale),
            helper.make_node("Add", [_SCALED, offset], [PIXELS], shift),
        ]
    )
    sort_nodes(copied.graph)
    return copied


def in_one_step(model: onnx.ModelProto, spec: BackboneSpec) -> onnx.ModelProto:
    """A copy of the rounded `model` whose first nodes scale, shift and round in one QuantizeLinear.

    With a scale 1 / (255 std_c) and a zero point round(255 mean_c) for each channel, and v a whole number,
    round(255 std x) + round(255 mean) = round(v - 255 mean) + round(255 mean) = v, unless 255 mean lies halfway between
    two whole numbers, where the rounding of floats would decide: then nothing is changed, nor where the first
    convolution is float.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    levels = 255 * np.asarray(spec.mean, np.float64)
    first = _only_reader(copied.graph, PIXELS)
    if first is None or first.op_type != "QuantizeLinear" or (np.abs(levels % 1 - 0.5) < _HALFWAY).any():
        return copied
    constants: dict[str, NDArray[Any]] = {
        f"{PIXELS}/steps": (1 / (255 * np.asarray(spec.std, np.float64))).astype(np.float32),
        f"{PIXELS}/zero_points": np.rint(levels).astype(np.uint8),
    }
    copied.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    first.input[:] = [_PADDED, *constants]
    del first.attribute[:]
    first.attribute.append(helper.make_attribute("axis", 1))
    for node in [node for node in copied.graph.node if node.name in FLOAT_NODES[1:]]:
        copied.graph.node.remove(node)
    for tensor in [tensor for tensor in copied.graph.initializer if tensor.name in (_STD, _MEAN)]:
        copied.graph.initializer.remove(tensor)
    return copied


def _readers(graph: onnx.GraphProto, value: str) -> list[NodeProto]:
    return [node for node in graph.node if value in node.input]


def _only_reader(graph: onnx.GraphProto, value: str) -> NodeProto | None:
    readers = _readers(graph, value)
    return readers[0] if len(readers) == 1 and readers[0].input[0] == value else None


def _pads_with_zeros(node: NodeProto, arrays: Mapping[str, NDArray[Any]]) -> bool:
    if node.op_type != "Pad" or any(each.name == "mode" and each.s != b"constant" for each in node.attribute):
        return False
    constant = node.input[2] if len(node.input) > 2 else ""
    return not constant or (constant in arrays and not arrays[constant].any())


def _attribute(node: NodeProto, name: str, default: list[int]) -> list[int]:
    return next((list(each.ints) or [int(each.i)] for each in node.attribute if each.name == name), default)
