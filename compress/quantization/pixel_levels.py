"""The first convolution reads the levels of the pixels, so that rounding its input loses nothing, and in blocks.

A normalised image x = (p - mean) / std, p = 0, 1/255, ... 1, has no more levels than uint8. But its channels differ
in mean and deviation: with one scale for the tensor its levels are not the pixels', and rounding errs by up to half a
grey level, on surfaces whose whole contrast may be a few of them.
So the first convolution reads r = p - z with the step 1 / 255, z being a level close to the means. A further channel
is u inside the image and 0 where the convolution pads, as r is; its weights take off what the means differ from z:

    sum_c w_c x_c = sum_c (w_c / std_c) r_c + (1 / u) (sum_c (w_c / std_c) (z - mean_c)) u.

That holds at every place of the filter, and so at the border too. Where the convolution has a stride it reads blocks
(see `blocks`): of stride 2, 12 channels of colours and 4 of u.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from compress.backbone import BackboneSpec
from compress.export.graph import INPUT, attribute, readers_of
from compress.quantization.affine import LEVELS, Range
from compress.quantization.blocks import Side, blocked_filters, blocked_side
from compress.quantization.qdq import sort_nodes

PIXELS = "pixels"
_BLOCKS, _SCALED, _SHIFTED = (f"{PIXELS}/{name}" for name in ("blocks", "scaled", "shifted"))
_STD, _OFFSET, _CHANNELS, _INSIDE = (f"{PIXELS}/{name}" for name in ("std", "offset", "channels", "inside"))
_HALFWAY = 1e-3  # grey levels; float32 errs by a hundredth of that
FLOAT_NODES = (f"{PIXELS}/block", f"{PIXELS}/scale", f"{PIXELS}/shift", f"{PIXELS}/pad")

Arrays = Mapping[str, NDArray[Any]]


def pixel_range(spec: BackboneSpec) -> Range:
    """What r = p - z spans; its 256 levels are those of the pixels."""
    zero = _zero_level(spec) / LEVELS
    return Range(-zero, 1 - zero)


def over_pixels(model: onnx.ModelProto, spec: BackboneSpec) -> onnx.ModelProto:
    """A copy of `model` that computes the same by way of the value `pixels`, which `FLOAT_NODES` make.

    Just a copy where the input, or the input padded with zeros, is not read by one convolution alone, or where that
    convolution has groups, dilations, or weights that are computed or that other nodes read too.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in copied.graph.initializer}
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items() if tensor.name}
    reader = _only_reader(copied.graph, INPUT)
    before, added = None, [0] * 4
    if reader is not None and (found := _zeros_added(reader, arrays)):
        before, added = reader, found
        reader = _only_reader(copied.graph, before.output[0])
    if reader is None or not _is_plain(copied.graph, reader, arrays):
        return copied
    name = reader.input[1]
    filters, block, moves = _over_blocks(copied.graph, reader, _with_inside(arrays[name], spec), added)
    tensors[name].CopyFrom(numpy_helper.from_array(filters.astype(np.float32), name))
    kept = [each for each in reader.attribute if each.name not in moves]
    del reader.attribute[:]
    reader.attribute.extend([*kept, *(helper.make_attribute(each, values) for each, values in moves.items())])
    reader.input[0] = PIXELS
    if before is not None:
        copied.graph.node.remove(before)
    mean, std = (np.tile(np.reshape(values, (1, 3, 1, 1)), (1, block**2, 1, 1)) for values in (spec.mean, spec.std))
    constants: dict[str, NDArray[Any]] = {
        _STD: std.astype(np.float32),
        _OFFSET: (mean + pixel_range(spec).low).astype(np.float32),
        _CHANNELS: np.array([0, 0, 0, 0, 0, block**2, 0, 0], np.int64),
        _INSIDE: np.array(_inside(spec), np.float32),
    }
    copied.graph.initializer.extend(numpy_helper.from_array(values, each) for each, values in constants.items())
    to_blocks, scale, shift, pad = FLOAT_NODES
    copied.graph.node.extend(
        [
            helper.make_node("SpaceToDepth", [INPUT], [_BLOCKS], to_blocks, blocksize=block),
            helper.make_node("Mul", [_BLOCKS, _STD], [_SCALED], scale),
            helper.make_node("Add", [_SCALED, _OFFSET], [_SHIFTED], shift),
            helper.make_node("Pad", [_SHIFTED, _CHANNELS, _INSIDE], [PIXELS], pad),
        ]
    )
    sort_nodes(copied.graph)
    return copied


def in_one_step(model: onnx.ModelProto, spec: BackboneSpec) -> onnx.ModelProto:
    """A copy of the rounded `model` that scales, shifts and rounds in one QuantizeLinear, and pads what is rounded.

    With a scale 1 / (255 std_c) and a zero point round(255 mean_c) for each channel, and v a whole number,
    round(255 std x) + round(255 mean) = round(v - 255 mean) + round(255 mean) = v, unless 255 mean lies halfway between
    two whole numbers, where the rounding of floats would decide: then nothing is changed, nor where the first
    convolution is float.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    levels = LEVELS * np.asarray(spec.mean, np.float64)
    first = _only_reader(copied.graph, PIXELS)
    if first is None or first.op_type != "QuantizeLinear" or (np.abs(levels % 1 - 0.5) < _HALFWAY).any():
        return copied
    _, scale, shift, pad = (next(node for node in copied.graph.node if node.name == name) for name in FLOAT_NODES)
    tensors = {tensor.name: tensor for tensor in copied.graph.initializer}
    blocks = numpy_helper.to_array(tensors[_STD]).shape[1] // 3
    constants: dict[str, NDArray[Any]] = {
        f"{PIXELS}/steps": np.tile(1 / (LEVELS * np.asarray(spec.std, np.float64)), blocks).astype(np.float32),
        f"{PIXELS}/zero_points": np.tile(np.rint(levels), blocks).astype(np.uint8),
        f"{PIXELS}/inside_level": np.array(_inside_level(_zero_level(spec)), np.uint8),
    }
    steps, zero_points, inside = constants
    copied.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    rounded = f"{PIXELS}/levels"
    pad.input[:], pad.output[:] = [rounded, _CHANNELS, inside], first.output[:]
    first.input[:], first.output[:] = [_BLOCKS, steps, zero_points], [rounded]
    del first.attribute[:]
    first.attribute.append(helper.make_attribute("axis", 1))
    for node in (scale, shift):
        copied.graph.node.remove(node)
    for name in (_STD, _OFFSET, _INSIDE):
        copied.graph.initializer.remove(tensors[name])
    sort_nodes(copied.graph)
    return copied


def _with_inside(filters: NDArray[np.float32], spec: BackboneSpec) -> NDArray[np.float64]:
    """Filters (O, 3, h, w) over normalised images as (O, 4, h, w) over r and u."""
    mean, std = (np.reshape(np.asarray(values, np.float64), (1, 3, 1, 1)) for values in (spec.mean, spec.std))
    by_colour = filters / std
    by_place = (by_colour * -(mean + pixel_range(spec).low)).sum(axis=1, keepdims=True) / _inside(spec)
    return np.concatenate([by_colour, by_place], axis=1)


def _over_blocks(
    graph: onnx.GraphProto, reader: NodeProto, filters: NDArray[np.float64], added: list[int]
) -> tuple[NDArray[Any], int, dict[str, list[int]]]:
    """The filters over blocks, the blocks' side, and how the convolution is to move over them."""
    sizes = [int(side.dim_value) for side in graph.input[0].type.tensor_type.shape.dim[2:]]
    strides = attribute(reader, "strides", [1, 1])
    block = strides[0] if strides[0] == strides[1] and all(size % strides[0] == 0 for size in sizes) else 1
    pads = [own + more for own, more in zip(attribute(reader, "pads", [0] * 4), added, strict=True)]
    sides = [Side(filters.shape[2 + axis], pads[axis], pads[2 + axis]) for axis in (0, 1)]
    (top, rows), (left, columns) = (
        blocked_side(size, side, stride, block) for size, side, stride in zip(sizes, sides, strides, strict=True)
    )
    colours, inside = (
        blocked_filters(part, block, (top, left), (rows.length, columns.length)) for part in np.split(filters, [3], 1)
    )
    moves = {
        "kernel_shape": [rows.length, columns.length],
        "pads": [rows.before, columns.before, rows.behind, columns.behind],
        "strides": [stride // block for stride in strides],
    }
    return np.concatenate([colours, inside], axis=1), block, moves


def _zero_level(spec: BackboneSpec) -> int:
    """255 z: the level that is closest to the mean of the means."""
    return round(LEVELS * float(np.mean(spec.mean)))


def _inside_level(zero: int) -> int:
    """The level of u, as far from `zero` as there is."""
    return LEVELS if 2 * zero < LEVELS else 0


def _inside(spec: BackboneSpec) -> float:
    """u."""
    zero = _zero_level(spec)
    return (_inside_level(zero) - zero) / LEVELS


def _only_reader(graph: onnx.GraphProto, value: str) -> NodeProto | None:
    readers = readers_of(graph, value)
    return readers[0] if len(readers) == 1 and readers[0].input[0] == value else None


def _is_plain(graph: onnx.GraphProto, node: NodeProto, arrays: Arrays) -> bool:
    """Whether `node` is a convolution over all channels and neighbours, with constant weights of its own."""
    if node.op_type != "Conv" or attribute(node, "group", 1) != 1:
        return False
    shared = len(readers_of(graph, node.input[1])) > 1
    return not shared and node.input[1] in arrays and set(attribute(node, "dilations", [1])) == {1}


def _zeros_added(node: NodeProto, arrays: Arrays) -> list[int] | None:
    """How many zeros `node` adds above, left of, below and right of an image; None if that is not all it does."""
    if node.op_type != "Pad" or any(each.name == "mode" and each.s != b"constant" for each in node.attribute):
        return None
    sides, value, axes = [*node.input[1:], "", ""][:3]
    if axes or sides not in arrays or (value and (value not in arrays or arrays[value].any())):
        return None
    before, behind = np.split(arrays[sides], 2)
    if before[:2].any() or behind[:2].any() or min(*before, *behind) < 0:
        return None
    return [int(count) for count in (*before[2:], *behind[2:])]
