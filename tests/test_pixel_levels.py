"""The rounded input has the pixels' levels: nothing is lost, whatever mean and deviation a network was trained with."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

import compress
from compress.backbone import BackboneSpec
from compress.export.parity import relative_error, watching
from compress.export.runtimes import open_model
from compress.quantization.affine import Range
from compress.quantization.pixel_levels import FLOAT_NODES, PIXELS, in_one_step, over_pixels, pixel_range
from compress.quantization.qdq import rounded


@pytest.fixture(scope="module")
def spec() -> BackboneSpec:
    return compress.create_backbone("resnet18", weights="none").spec


def network(
    *,
    first: str = "Conv",
    pad: str | None = None,
    readers: int = 1,
    weights: str = "w",
    bias: tuple[str, ...] = ("b",),
    groups: int = 1,
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    sides: tuple[int, ...] = (0, 0, 1, 0, 0, 0, 1, 2),
) -> onnx.ModelProto:
    """A convolution that pads, perhaps behind a Pad, a ReLU or with a second reader of the input.

    `pad` ("" for none that is named), `weights` and `bias` are names of the values below, which are initializers;
    with `computed_` before it a value is the output of a node.
    """
    rng = np.random.default_rng(0)
    values = {"w": rng.normal(size=(4, 3, 3, 3)), "grouped": rng.normal(size=(3, 1, 3, 3)), "b": rng.normal(size=4)}
    values |= {"zero": np.zeros(()), "one": np.ones(())}
    computed = [name for name in values if f"computed_{name}" in (weights, pad, *bias)]
    nodes = [helper.make_node("Identity", [name], [f"computed_{name}"], f"computing_{name}") for name in computed]
    source = "images"
    if pad is not None:
        nodes.append(helper.make_node("Pad", [source, "sides", pad], ["padded"], "stem/pad"))
        source = "padded"
    if first != "Conv":
        nodes.append(helper.make_node(first, [source], ["first"], "first"))
        source = "first"
    nodes += [
        helper.make_node(
            "Conv",
            [source, weights, *bias],
            [f"map{number}"],
            f"conv{number}",
            pads=[1, 2, 0, 1],
            group=groups,
            strides=strides,
            dilations=dilations,
        )
        for number in range(readers)
    ]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    constants.append(numpy_helper.from_array(np.array(sides), "sides"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 12, 12])],
        [helper.make_tensor_value_info(f"map{number}", TensorProto.FLOAT, list("NCHW")) for number in range(readers)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def normalised(spec: BackboneSpec, levels: np.ndarray) -> np.ndarray:
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (spec.mean, spec.std))
    return ((levels / 255 - mean) / std).astype(np.float32)


def levels_read(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """The uint8 values that the first convolution of a rounded model reads."""
    makers = {node.output[0]: node for node in model.graph.node}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    source = makers[first.input[0]]
    assert source.op_type == "DequantizeLinear"
    (seen,) = open_model(watching(model, [source.input[0]]).SerializeToString())(images)
    assert seen.dtype == np.uint8
    return seen


def in_blocks(levels: np.ndarray, block: int) -> np.ndarray:
    """The pixels of each block behind each other, row by row, each with its channels."""
    parts = [levels[:, :, y::block, x::block] for y in range(block) for x in range(block)]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize(
    ("strides", "block"), [((1, 1), 1), ((2, 2), 2), ((3, 3), 3), ((4, 4), 4), ((5, 5), 1), ((2, 1), 1)]
)
@pytest.mark.parametrize("bias", [("b",), (), ("",), ("computed_b",)])
@pytest.mark.parametrize("pad", [None, "", "zero"])
@pytest.mark.parametrize("normalisation", [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)])
def test_the_float_network_computes_what_it_did_and_all_levels_are_exact(
    spec: BackboneSpec,
    pad: str | None,
    bias: tuple[str, ...],
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    strides: tuple[int, int],
    block: int,
) -> None:
    mean, std = normalisation
    own = dataclasses.replace(spec, mean=mean, std=std)
    model = network(pad=pad, bias=bias, strides=strides)
    levels = np.random.default_rng(1).permutation(np.arange(432) % 256).reshape(1, 3, 12, 12)
    images = normalised(own, levels)
    changed = over_pixels(model, own)
    before, after = (open_model(each.SerializeToString())(images)[0] for each in (model, changed))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    wide = dict.fromkeys([value for node in changed.graph.node for value in node.output] + ["images"], Range(-40, 40))
    int8 = rounded(changed, wide | {PIXELS: pixel_range(own)}, FLOAT_NODES)
    for each in (int8, in_one_step(int8, own)):
        seen = levels_read(each, images)
        colours, inside = seen[:, : 3 * block**2], seen[:, 3 * block**2 :]
        assert np.array_equal(colours, in_blocks(levels, block)), "the rounded input is the image"
        assert inside.shape[1] == block**2
        assert len(np.unique(inside)) == 1
    assert (in_one_step(int8, own) == int8) == (mean == (0.5,) * 3), "127.5 would be rounded up or down by chance"


@pytest.mark.parametrize(
    "begins",
    [
        {"first": "Relu"},
        {"readers": 2},
        {"weights": "grouped", "bias": (), "groups": 3},
        {"pad": "one"},
        {"pad": "computed_zero"},
        {"weights": "computed_w"},
        {"dilations": (2, 2)},
        {"pad": "", "sides": (0, 1, 1, 0, 0, 0, 1, 2)},
        {"pad": "", "sides": (0, 0, 1, 0, 0, 0, -1, 2)},
    ],
)
def test_a_network_that_begins_otherwise_is_left_alone(spec: BackboneSpec, begins: dict[str, Any]) -> None:
    model = network(**begins)
    onnx.checker.check_model(model)
    assert over_pixels(model, spec) == model


def test_weights_that_another_node_reads_are_left_to_it(spec: BackboneSpec) -> None:
    model = network()
    model.graph.node.append(helper.make_node("Identity", ["w"], ["also"], "reader"))
    assert over_pixels(model, spec) == model


@pytest.fixture(scope="module")
def backbone() -> compress.Backbone:
    return compress.create_backbone("resnet18", weights="none", taps=("layer1",))


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8, generator=generator))


@pytest.fixture(scope="module")
def int8(backbone: compress.Backbone, images: list[Tensor]) -> compress.OnnxBackbone:
    return compress.quantize(backbone, images)


def test_what_an_int8_network_reads_is_the_image(int8: compress.OnnxBackbone) -> None:
    levels = np.random.default_rng(2).integers(0, 256, (2, 3, 224, 224))
    value, operators = "images", []
    while operators[-1:] != ["Conv"]:
        (reader,) = [node for node in int8.model.graph.node if value in node.input]
        operators.append(reader.op_type)
        value = reader.output[0]
    assert operators == ["SpaceToDepth", "QuantizeLinear", "Pad", "DequantizeLinear", "Conv"], "no arithmetic in float"
    seen = levels_read(int8.model, normalised(int8.spec, levels))
    assert np.array_equal(seen, np.concatenate([in_blocks(levels, 2), np.full((2, 4, 112, 112), 255)], axis=1))


def test_a_first_layer_in_float_is_still_right(backbone: compress.Backbone, images: list[Tensor]) -> None:
    mixed = compress.quantize(backbone, images, keep_float=["conv1"])
    assert mixed.header.quantization is not None
    assert mixed.header.quantization["map_errors"]["layer1"] < 0.1


def test_openvino_runs_it_alike(int8: compress.OnnxBackbone) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    other = compress.OnnxBackbone(int8.model, int8.header, runtime="openvino")
    x = torch.from_numpy(normalised(int8.spec, np.random.default_rng(3).integers(0, 256, (2, 3, 224, 224))))
    assert relative_error(int8(x)[0].numpy(), other(x)[0].numpy()) < 0.05
