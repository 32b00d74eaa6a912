"""From pixels of any size to what the backbone takes, inside the graph.

Pillow's bilinear resize is two matrix products, one along each axis, each rounded to whole grey levels
(Pillow, src/libImaging/Resample.c). Output position i of m looks at input position x of n with the weight

    w(i, x) = max(0, 1 - |x + 1/2 - (i + 1/2) n/m| / s),   s = max(n/m, 1),   scaled so that sum_x w(i, x) = 1.

The longer axis goes first. The crop takes rows out of these matrices, so nothing is computed that it would throw
away. What stays different from Pillow is one grey level where its fixed-point weights round otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, TensorProto

from anomaly.export.graph import Graph, integers
from prunecore_runtime.images import CROP, MARGIN, RESIZE


def add_preprocessing(graph: Graph, images: str, mean: Sequence[float], std: Sequence[float]) -> str:
    """uint8 RGB (N, H, W, 3) of any size to float32 (N, 3, 224, 224), normalised."""
    planes = graph.op("Transpose", images, perm=[0, 3, 1, 2])
    shape = graph.op("Shape", planes)
    height = graph.op("Gather", shape, integers(graph, 2))
    width = graph.op("Gather", shape, integers(graph, 3))
    side = integers(graph, RESIZE)
    is_resized = graph.op("And", graph.op("Equal", height, side), graph.op("Equal", width, side))
    pixels = graph.op(
        "If", is_resized, then_branch=_crop(graph, planes), else_branch=_resize(graph, planes, height, width)
    )
    # (v / 255 - mean) / std as one product and one sum
    scale = np.reshape(1 / (255 * np.asarray(std)), (1, 3, 1, 1))
    offset = np.reshape(-np.asarray(mean) / np.asarray(std), (1, 3, 1, 1))
    values = graph.op("Cast", pixels, to=TensorProto.FLOAT)
    scaled = graph.op("Mul", values, graph.constant(scale, np.float32))
    return graph.op("Add", scaled, graph.constant(offset, np.float32))


def _crop(graph: Graph, planes: str) -> GraphProto:
    """A resize from 256 to 256 changes nothing: only the crop is left."""
    inner = Graph(f"{graph.stage}/crop")
    first, last = integers(inner, [MARGIN] * 2), integers(inner, [MARGIN + CROP] * 2)
    return inner.branch(inner.op("Slice", planes, first, last, integers(inner, [2, 3])))


def _resize(graph: Graph, planes: str, height: str, width: str) -> GraphProto:
    inner = Graph(f"{graph.stage}/resize")
    values = inner.op("Cast", planes, to=TensorProto.FLOAT)
    rows, columns = _weights(inner, height), _weights(inner, width)
    across, down = Graph(f"{inner.stage}/across_first"), Graph(f"{inner.stage}/down_first")
    wide = across.branch(_down(across, _across(across, values, columns), rows))
    tall = down.branch(_across(down, _down(down, values, rows), columns))
    is_tall = inner.op("Greater", height, width)
    resized = inner.op("If", is_tall, then_branch=tall, else_branch=wide)
    return inner.branch(inner.op("Cast", resized, to=TensorProto.UINT8))


def _across(graph: Graph, values: str, columns: str) -> str:
    return _whole(graph, graph.op("MatMul", values, graph.op("Transpose", columns, perm=[1, 0])))


def _down(graph: Graph, values: str, rows: str) -> str:
    return _whole(graph, graph.op("MatMul", rows, values))


def _whole(graph: Graph, values: str) -> str:
    """Rounded half up to 0...255; weights are no less than 0 and sum to 1, but for rounding."""
    rounded = graph.op("Floor", graph.op("Add", values, graph.constant(0.5, np.float32)))
    return graph.op("Clip", rounded, graph.constant(0, np.float32), graph.constant(255, np.float32))


def _weights(graph: Graph, length: str) -> str:
    """The matrix (224, length) of w(i, x) for the 224 positions that the crop keeps, as float32."""
    n = graph.op("Cast", length, to=TensorProto.DOUBLE)
    ratio = graph.op("Div", n, graph.constant(RESIZE, np.float64))
    one = graph.constant(1, np.float64)
    reach = graph.op("Max", ratio, one)
    kept = np.arange(MARGIN, MARGIN + CROP)[:, None] + 0.5
    centres = graph.op("Mul", graph.constant(kept, np.float64), ratio)
    places = graph.op(
        "Range", graph.constant(0.5, np.float64), graph.op("Add", n, graph.constant(0.25, np.float64)), one
    )
    distance = graph.op("Div", graph.op("Abs", graph.op("Sub", places, centres)), reach)
    triangle = graph.op("Relu", graph.op("Sub", one, distance))
    total = graph.op("ReduceSum", triangle, integers(graph, [1]), keepdims=1)
    return graph.op("Cast", graph.op("Div", triangle, total), to=TensorProto.FLOAT)
