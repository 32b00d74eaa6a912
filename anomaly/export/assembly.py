"""Joins the stages around a backbone's ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, compose, helper

from anomaly.errors import AnomalyError
from anomaly.export.embedding import Shape, add_embedding
from anomaly.export.graph import OPSET, Graph
from anomaly.export.preprocessing import add_preprocessing
from anomaly.export.scoring import add_scoring
from anomaly.export.search import BankPrecision, add_search
from prunecore_runtime.detector import PRODUCER
from prunecore_runtime.images import CROP

IMAGES = "images"  # the name of the input
LARGEST = 2**31 - 2**20  # bytes; Protocol Buffers end at 2**31, and a graph around the bank needs its share
STAGES = ("preprocess", "features", "embedding", "search", "scoring")


def detector_graph(
    backbone: ModelProto,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    bank: NDArray[np.float32],
    threshold: float,
    precision: BankPrecision = BankPrecision.FLOAT32,
) -> ModelProto:
    """The whole detector as one ONNX model.

    Input: `images`, uint8 RGB (N, H, W, 3), any N, H and W. Outputs: `score` (N,), the image score; `normalised` (N,),
    score / threshold; `map` (N, 224, 224), the anomaly map of the centre crop; all float32.
    The names of all nodes begin with their stage: `preprocess/`, `features/`, `embedding/`, `search/` or `scoring/`.

    Args:
        backbone: takes normalised images (N, 3, 224, 224), gives maps (N, C_i, H_i, W_i), shallow first; its opset is
            18 or later.
        mean, std: of RGB in [0, 1], what the backbone was trained with.
        bank: (K, D), D = sum C_i.
        threshold: of the image score, above 0.

    Raises:
        AnomalyError: a backbone, bank or threshold that does not fit.
    """
    shapes = _check(backbone, bank, threshold)
    size = bank.size * precision.item_bytes + backbone.ByteSize()
    if size > LARGEST:
        raise AnomalyError(
            f"a bank of {len(bank):,} patches makes a file of {size / 1e9:.1f} GB in {precision.value}, and ONNX files "
            f"end at {LARGEST / 1e9:.1f}: keep fewer patches, or choose a coarser precision"
        )
    features = compose.add_prefix(backbone, "features/")
    before, after, search, scoring = (Graph(stage) for stage in STAGES if stage != "features")
    pixels = add_preprocessing(before, IMAGES, mean, std)
    (taken,) = (value.name for value in features.graph.input)
    maps = [value.name for value in features.graph.output]
    patches = add_embedding(after, maps, shapes)
    distances = add_search(search, patches, bank, precision)
    _, height, width = shapes[0]
    add_scoring(scoring, distances, height, width, size=CROP, threshold=threshold)
    entrance = helper.make_node("Identity", [pixels], [taken], name="preprocess/entrance")
    nodes = [*before.nodes, entrance, *_in_order(features.graph)]
    constants = [*before.constants, *features.graph.initializer]
    for stage in (after, search, scoring):
        nodes += stage.nodes
        constants += stage.constants
    graph = helper.make_graph(nodes, "detector", [_value(IMAGES, TensorProto.UINT8, "HW3")], _outputs(), constants)
    model = helper.make_model(graph, opset_imports=features.opset_import, producer_name=PRODUCER)
    model.ir_version = features.ir_version
    onnx.checker.check_model(model, full_check=True)
    return model


def _in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes, each behind those that it takes values from, however the file has them."""
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise AnomalyError(f"the backbone's node {waiting[0].name} takes what no other gives: export it again")
        known.update(output for node in ready for output in node.output)
        ordered += ready
        waiting = [node for node in waiting if not known.issuperset(node.output)]
    return ordered


def _check(backbone: ModelProto, bank: NDArray[np.float32], threshold: float) -> list[Shape]:
    """The shapes (C_i, H_i, W_i) of the maps."""
    opset = next((each.version for each in backbone.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < OPSET:
        raise AnomalyError(f"the backbone's graph has opset {opset}, a detector needs {OPSET}: export it again")
    if not 0 < threshold < float("inf"):
        raise AnomalyError(f"threshold {threshold} is not above 0: fit on more, or on more varied, good images")
    taken = [_shape(value) for value in backbone.graph.input]
    if [shape[1:] for shape in taken] != [(3, CROP, CROP)]:
        raise AnomalyError(f"the backbone takes {taken}, and a detector gives one input (N, 3, {CROP}, {CROP})")
    shapes: list[Shape] = []
    for value in backbone.graph.output:
        _, *sides = _shape(value)
        if len(sides) != 3 or min(sides) < 1:
            raise AnomalyError(f"the backbone's map {value.name} has no fixed shape (C, H, W): export it again")
        shapes.append((sides[0], sides[1], sides[2]))
    if bank.ndim != 2 or not len(bank) or bank.shape[1] != sum(shape[0] for shape in shapes):
        raise AnomalyError(f"a bank {bank.shape} does not fit maps {shapes}: fit the detector with this backbone")
    return shapes


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The sides of a value; 0 where one is not fixed."""
    return tuple(int(side.dim_value) for side in value.type.tensor_type.shape.dim)


def _value(name: str, kind: int, sides: Sequence[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, kind, ["N", *(int(side) if str(side).isdigit() else side for side in sides)]
    )


def _outputs() -> list[onnx.ValueInfoProto]:
    shapes: dict[str, tuple[int, ...]] = {"score": (), "normalised": (), "map": (CROP, CROP)}
    return [_value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
