"""The nearest-neighbour search inside the graph: |x - y|^2 = |x|^2 - 2 x.y + |y|^2, the product over all of the bank.

Patches and bank are shifted by the bank's mean first: distances stay, and less is lost in the difference of squares.
The bank is cut into blocks, so that memory is bounded by N x P x 1024 products and they stay in the processor's cache.

An int8 bank is b = round((y - c) / s) in 8 bits, c being the middle of its range and s the range over 255. Whole
numbers choose the nearest neighbour: with a = round((x - c) / 2s), 7 bits, |x - y|^2 is about
s^2 (4 |a|^2 - 4 a.b + |b|^2), of which |b|^2 / 4 - a.b is what decides. Seven bits, because x86 processors without VNNI
add two products of 8 by 8 bits in 16 bits, which overflows (ONNX Runtime's `reduce_range`). The distance to the chosen
vector is then computed in float32 from x itself, so what remains is the rounding of the bank, s/2 at most in each
dimension, and an image far outside of the bank's range is as far as it is.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from anomaly.export.graph import Graph, integers

BLOCK = 1024  # bank vectors in one product
_ZERO = 64  # a patch's code of c


class BankPrecision(str, Enum):
    """How the bank's vectors are stored; float16 is computed with as float32."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"

    @property
    def item_bytes(self) -> int:
        """Of one number."""
        return np.dtype(self.value).itemsize


def add_search(graph: Graph, patches: str, bank: NDArray[np.float32], precision: BankPrecision) -> str:
    """Patch features (N, D, P) to distances (N, P); `bank` is (K, D)."""
    mean = bank.mean(axis=0, dtype=np.float64)
    centred = graph.op("Sub", patches, graph.constant(mean[:, None], np.float32))
    rows = _rows(graph, centred, len(mean))
    search = _search_int8 if precision is BankPrecision.INT8 else _search_float
    squared = search(graph, rows, bank - mean, precision)
    distances = graph.op("Sqrt", graph.op("Max", squared, graph.constant(0, np.float32)))  # rounding goes below 0
    count = graph.op("Shape", patches, start=2, end=3)
    return graph.op("Reshape", distances, graph.op("Concat", integers(graph, [-1]), count, axis=0))


def _rows(graph: Graph, patches: str, dimensions: int) -> str:
    """(N, D, P) to (N P, D)."""
    return graph.op("Reshape", graph.op("Transpose", patches, perm=[0, 2, 1]), integers(graph, [-1, dimensions]))


def _blocks(bank: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [bank[start : start + BLOCK] for start in range(0, len(bank), BLOCK)]


def _search_float(graph: Graph, rows: str, bank: NDArray[np.float64], precision: BankPrecision) -> str:
    """Squared distances (N P,) of patches (N P, D)."""
    nearest = []
    for block in _blocks(bank):
        if precision is BankPrecision.FLOAT16:  # ONNX Runtime computes the cast once, when it loads the file
            stored = block.astype(np.float16)
            vectors = graph.op("Cast", graph.constant(stored, np.float16), to=TensorProto.FLOAT)
        else:
            stored = block.astype(np.float32)
            vectors = graph.constant(stored, np.float32)
        norms = graph.constant(np.square(stored.astype(np.float64)).sum(axis=1), np.float32)
        products = graph.op("Gemm", rows, vectors, norms, alpha=-2.0, transB=1)  # |y|^2 - 2 x.y
        nearest.append(graph.op("ReduceMin", products, integers(graph, [1]), keepdims=0))
    norms = graph.op("ReduceSumSquare", rows, integers(graph, [1]), keepdims=0)
    return graph.op("Add", graph.op("Min", *nearest), norms)


def _search_int8(graph: Graph, rows: str, bank: NDArray[np.float64], precision: BankPrecision) -> str:
    """As `_search_float`."""
    low, high = float(bank.min()), float(bank.max())
    middle, step = (low + high) / 2, max(high - low, 1e-6) / 255
    codes = np.clip(np.rint((bank - middle) / step), -128, 127)
    held = graph.constant(codes, np.int8)
    shifted = graph.op("Sub", rows, graph.constant(middle, np.float32))
    chosen = graph.op("Gather", held, _choice(graph, shifted, codes, held, step), axis=0)
    scale, zero = graph.constant(step, np.float32), graph.constant(0, np.int8)
    difference = graph.op("Sub", shifted, graph.op("DequantizeLinear", chosen, scale, zero))
    return graph.op("ReduceSumSquare", difference, integers(graph, [1]), keepdims=0)


def _choice(graph: Graph, shifted: str, codes: NDArray[np.float64], held: str, step: float) -> str:
    """The place in the bank (N P,) of each patch's nearest neighbour by codes."""
    zero, most = graph.constant(_ZERO, np.uint8), graph.constant(2 * _ZERO - 1, np.uint8)
    wide = graph.op("QuantizeLinear", shifted, graph.constant(2 * step, np.float32), zero)
    patches = graph.op("Min", wide, most)  # a + 64
    axis = integers(graph, [1])
    places, values = [], []
    for start in range(0, len(codes), BLOCK):
        norms = graph.constant(np.rint(np.square(codes[start : start + BLOCK]).sum(axis=1) / 4), np.int32)
        # ONNX Runtime cuts and turns constants once, when it loads the file, which holds the bank once.
        block = graph.op(
            "Slice", held, integers(graph, [start]), integers(graph, [start + BLOCK]), integers(graph, [0])
        )
        product = graph.op("MatMulInteger", patches, graph.op("Transpose", block, perm=[1, 0]), zero)  # a.b
        difference = graph.op("Sub", norms, product)
        nearest = graph.op("ArgMin", difference, axis=1, keepdims=1)
        if len(codes) <= BLOCK:
            return graph.op("Squeeze", nearest, axis)
        places.append(graph.op("Add", nearest, integers(graph, start)))
        values.append(graph.op("ReduceMin", difference, axis, keepdims=1))
    best = graph.op("ArgMin", graph.op("Concat", *values, axis=1), axis=1, keepdims=1)
    return graph.op("Squeeze", graph.op("GatherElements", graph.op("Concat", *places, axis=1), best, axis=1), axis)
