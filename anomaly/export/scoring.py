"""Image score and anomaly map inside the graph.

Bilinear upsampling U and Gaussian smoothing G (scipy's, with its reflecting edges) are linear along each axis, so the
whole map is two small products: M = (G U) D (G U)'.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from anomaly.export.embedding import upsampling
from anomaly.export.graph import Graph, integers
from anomaly.scoring import SIGMA


def add_scoring(graph: Graph, distances: str, height: int, width: int, *, size: int, threshold: float) -> None:
    """Patch distances (N, height x width) to the outputs: `score` and `normalised` (N,), `map` (N, size, size)."""
    score = graph.op("ReduceMax", distances, integers(graph, [1]), keepdims=0, output="score")
    graph.op("Div", score, graph.constant(threshold, np.float32), output="normalised")
    grid = graph.op("Reshape", distances, integers(graph, [-1, height, width]))
    across = graph.op("MatMul", grid, graph.constant(smoothed_upsampling(width, size).T, np.float32))
    graph.op("MatMul", graph.constant(smoothed_upsampling(height, size), np.float32), across, output="map")


def smoothed_upsampling(length: int, size: int) -> NDArray[np.float64]:
    """G U (size, length): upsampling along one axis, then the Gaussian of 4 pixels."""
    return np.asarray(gaussian_filter1d(upsampling(length, size), SIGMA, axis=0))
