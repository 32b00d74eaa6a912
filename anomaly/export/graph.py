"""An ONNX graph in the making."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 18  # the first whose ReduceMin takes its axes as an input; ONNX Runtime reads it since 1.14


class Graph:
    """Nodes and constants, each under a name of its own that begins with the `stage`.

    A branch of an `If` is a `Graph` too; it may use the names of the graph around it.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name, which is `output` if that is given."""
        name = output or f"{self.stage}/{kind}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, inputs, [name], name=f"{self.stage}/{kind}_{len(self.nodes)}", **attributes)
        )
        return name

    def constant(self, value: ArrayLike, dtype: DTypeLike) -> str:
        """Adds a tensor; returns its name."""
        name = f"{self.stage}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def branch(self, output: str) -> GraphProto:
        """This graph as a branch of an `If`, with the one output."""
        return helper.make_graph(self.nodes, self.stage, [], [ValueInfoProto(name=output)], self.constants)


def integers(graph: Graph, values: int | Sequence[int]) -> str:
    """A constant of axes or of a shape."""
    return graph.constant(values, np.int64)
