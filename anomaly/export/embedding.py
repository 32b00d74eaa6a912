"""The patch embedding inside the graph: the same numbers as `anomaly.patch_embedding`, as matrix products.

Averaging over 3x3 with zeros around is separable: P X P', where P averages three neighbours along one axis.
So is the bilinear resize: U X U'. A deeper map is therefore aligned by A = U P on both sides, in two small products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from anomaly.export.graph import Graph, integers

Shape = tuple[int, int, int]  # channels, height, width


def add_embedding(graph: Graph, maps: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Feature maps (N, C_i, H_i, W_i) to patch features (N, sum C_i, H_1 W_1)."""
    _, height, width = shapes[0]
    aligned = [_aligned(graph, each, shape, height, width) for each, shape in zip(maps, shapes, strict=True)]
    joined = graph.op("Concat", *aligned, axis=1) if len(aligned) > 1 else aligned[0]
    return graph.op("Reshape", joined, integers(graph, [0, sum(shape[0] for shape in shapes), height * width]))


def _aligned(graph: Graph, feature_map: str, shape: Shape, height: int, width: int) -> str:
    _, own_height, own_width = shape
    if (own_height, own_width) == (height, width):
        return graph.op("AveragePool", feature_map, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    rows, columns = (
        upsampling(own_height, height) @ averaging(own_height),
        upsampling(own_width, width) @ averaging(own_width),
    )
    across = graph.op("MatMul", feature_map, graph.constant(columns.T, np.float32))
    return graph.op("MatMul", graph.constant(rows, np.float32), across)


def averaging(length: int) -> NDArray[np.float64]:
    """P (length, length): the mean of three neighbours, zeros around."""
    return (np.eye(length) + np.eye(length, k=1) + np.eye(length, k=-1)) / 3


def upsampling(length: int, size: int) -> NDArray[np.float64]:
    """U (size, length): bilinear interpolation along one axis, as torch does it (half-pixel centres)."""
    unit = torch.eye(length, dtype=torch.float64)
    return F.interpolate(unit[None], size=size, mode="linear", align_corners=False)[0].T.numpy()
