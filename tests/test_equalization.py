"""Channels of like strength: the same float network, and an int8 one that a loud channel no longer drowns."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from processor import needs_exact_int8
from torch import Tensor, nn

import compress
from compress.backbone import BackboneSpec
from compress.export.parity import deviation, watching
from compress.export.runtimes import open_model
from compress.export.views import normalised_views
from compress.quantization import procedure
from compress.quantization.equalization import Equalized, equalized

LOUDNESS = np.array([1.0, 2.0, 10.0, 300.0])


@pytest.fixture(scope="module")
def spec() -> BackboneSpec:
    return compress.create_backbone("mobilenet_v3_small", weights="none").spec


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(24, 3, 8, 8, generator=generator) * 255
    smooth = nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 255)
    return list(smooth.to(torch.uint8))


def block(
    activation: str | None = "Relu", *, gate: str | None = None, groups: int = 4, also: str | None = None
) -> onnx.ModelProto:
    """stem -> activation -> depthwise -> ReLU (-> gate) -> dense; the stem's channels differ in strength.

    Args:
        gate: the operator that takes the mean of the gate.
        groups: of the second convolution.
        also: a value that is an output too.
    """
    rng = np.random.default_rng(0)
    values = {
        "stem.w": rng.normal(size=(4, 3, 8, 8)) / 8 * LOUDNESS.reshape(-1, 1, 1, 1),
        "stem.b": rng.normal(size=4) * LOUDNESS,
        "depthwise.w": rng.normal(size=(4, 4 // groups, 3, 3)),
        "depthwise.b": rng.normal(size=4),
        "dense.w": rng.normal(size=(5, 4, 1, 1)) * [[[[9.0]], [[1.0]], [[1.0]], [[0.1]]]],
        "squeeze.w": rng.normal(size=(2, 4, 1, 1)) / 100,
        "excite.w": rng.normal(size=(4, 2, 1, 1)),
    }
    nodes = [helper.make_node("Conv", ["images", "stem.w", "stem.b"], ["stem"], "stem", strides=[8, 8])]
    if activation is not None:
        nodes.append(helper.make_node(activation, ["stem"], ["active"], "act"))
    seen = "active" if activation else "stem"
    nodes += [
        helper.make_node(
            "Conv", [seen, "depthwise.w", "depthwise.b"], ["depthwise"], "depthwise", group=groups, pads=[1] * 4
        ),
        helper.make_node("Relu", ["depthwise"], ["rectified"], "relu"),
    ]
    if gate is not None:
        nodes += [
            helper.make_node(gate, ["rectified", "axes"][: 2 if gate == "ReduceMean" else 1], ["mean"], "mean"),
            helper.make_node("Conv", ["mean", "squeeze.w"], ["squeezed"], "squeeze"),
            helper.make_node("Conv", ["squeezed", "excite.w"], ["excited"], "excite"),
            helper.make_node("HardSigmoid", ["excited"], ["gates"], "gates"),
            helper.make_node("Mul", ["gates", "rectified"], ["gated"], "gated"),
        ]
    nodes.append(helper.make_node("Conv", ["gated" if gate else "rectified", "dense.w"], ["map"], "dense"))
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list("NCHW")) for name in ("map", also) if name]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 224, 224])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def done(model: onnx.ModelProto, spec: BackboneSpec, images: list[Tensor]) -> Equalized:
    return equalized(model, spec, images, range(len(images)))


def values(model: onnx.ModelProto, names: list[str], spec: BackboneSpec, images: list[Tensor]) -> list[Any]:
    views = normalised_views(images, range(len(images)), spec).numpy()
    return list(open_model(watching(model, names).SerializeToString())(views))


def weights(model: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def strengths(value: Any) -> Any:
    return np.abs(value).max(axis=(0, 2, 3))


def node(model: onnx.ModelProto, name: str) -> NodeProto:
    return next(each for each in model.graph.node if each.name == name)


@pytest.mark.parametrize("gate", [None, "ReduceMean", "GlobalAveragePool"])
@pytest.mark.parametrize("activation", [None, "Relu", "HardSwish"])
def test_the_float_network_computes_what_it_did(
    spec: BackboneSpec, images: list[Tensor], activation: str | None, gate: str | None
) -> None:
    model = block(activation, gate=gate)
    before = model.SerializeToString()
    found = done(model, spec, images)
    assert model.SerializeToString() == before
    onnx.checker.check_model(found.model)
    (exact,), (changed,) = (values(each, ["map"], spec, images) for each in (model, found.model))
    assert deviation(exact, changed) < 1e-5
    assert not np.allclose(weights(model)["dense.w"], weights(found.model)["dense.w"])


@pytest.mark.parametrize("activation", [None, "Relu"])
def test_what_a_depthwise_convolution_reads_has_strength_one(
    spec: BackboneSpec, images: list[Tensor], activation: str | None
) -> None:
    found = done(block(activation), spec, images).model
    read = node(found, "depthwise").input[0]
    assert strengths(values(found, [read], spec, images)[0]) == pytest.approx([1.0] * 4, rel=1e-5)


def test_what_a_dense_convolution_reads_is_as_strong_as_its_weights(spec: BackboneSpec, images: list[Tensor]) -> None:
    model = block()
    found = done(model, spec, images).model
    y, scaled = (strengths(values(each, ["rectified"], spec, images)[0]) for each in (model, found))
    w, balanced = (np.abs(weights(each)["dense.w"]).max(axis=(0, 2, 3)) for each in (model, found))
    assert scaled == pytest.approx(np.sqrt(w * y), rel=1e-5), "b y = sqrt(w / y) y"
    assert balanced == pytest.approx(np.sqrt(w * y), rel=1e-5), "w / b"


def test_in_front_of_a_hard_swish_levels_are_spent_on_what_it_lets_through(
    spec: BackboneSpec, images: list[Tensor]
) -> None:
    model = block("HardSwish")
    found = done(model, spec, images)
    assert found.floors == {"stem": -1.0}
    assert sorted(found.float_nodes) == ["act/product", "act/unscaled"]
    before, after = (values(each, ["stem"], spec, images)[0] for each in (model, found.model))
    highest, lowest = before.max(axis=(0, 2, 3)), before.min(axis=(0, 2, 3))
    by = np.maximum(highest, np.minimum(3, -lowest))
    assert after == pytest.approx(before / by.reshape(1, -1, 1, 1), rel=1e-4, abs=1e-5)
    assert after.min() < -1 < after.max() <= 1 + 1e-5
    assert np.all(before[after < -1 - 1e-5] < -3), "what the floor cuts off HardSwish turns to zero"


def test_a_silent_channel_is_not_blown_up(spec: BackboneSpec, images: list[Tensor]) -> None:
    model = block()
    silent = weights(model)["stem.w"].copy(), weights(model)["stem.b"].copy()
    silent[0][1], silent[1][1] = 0, 0
    for name, array in zip(("stem.w", "stem.b"), silent, strict=True):
        next(each for each in model.graph.initializer if each.name == name).CopyFrom(
            numpy_helper.from_array(array, name)
        )
    found = done(model, spec, images).model
    own, bias = (weights(found)[name][1] / weights(model)[name][1] for name in ("depthwise.w", "depthwise.b"))
    loudest = strengths(values(model, ["active"], spec, images)[0]).max()
    assert own / bias == pytest.approx(np.full_like(own, loudest / 1024), rel=1e-5)


@pytest.mark.parametrize(
    "model",
    [block(groups=1), block(groups=2), block(also="active"), block(also="stem")],
    ids=["dense", "grouped", "an output", "an output in front of the activation"],
)
def test_other_values_keep_their_strength(model: onnx.ModelProto, spec: BackboneSpec, images: list[Tensor]) -> None:
    found = done(model, spec, images).model
    assert np.array_equal(weights(found)["stem.w"], weights(model)["stem.w"])


@pytest.mark.parametrize("output", ["rectified", "mean", "gated"])
def test_an_output_keeps_its_strength(spec: BackboneSpec, images: list[Tensor], output: str) -> None:
    model = block(gate="ReduceMean", also=output)
    found = done(model, spec, images).model
    (exact,), (changed,) = (values(each, [output], spec, images) for each in (model, found))
    assert deviation(exact, changed) < 1e-5


def test_weights_that_two_layers_share_stay(spec: BackboneSpec, images: list[Tensor]) -> None:
    model = block()
    node(model, "depthwise").input[2] = "stem.b"
    assert done(model, spec, images).model == model


@needs_exact_int8
def test_a_loud_channel_no_longer_drowns_the_others(
    spec: BackboneSpec, images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A MobileNetV3 with random weights, and the same network with channels of its first block 1,000 times as loud."""
    torch.manual_seed(0)
    backbone = compress.create_backbone("mobilenet_v3_small", weights="none", taps=("features.1",))
    plain = compress.quantize(backbone, images).header.quantization
    norm, depthwise = backbone.get_submodule("trunk.features.0.1"), backbone.get_submodule("trunk.features.1.block.0.0")
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(depthwise, nn.Conv2d)
    louder = torch.logspace(0, 3, 16)
    with torch.no_grad():
        norm.weight.mul_(louder)
        depthwise.weight.div_(louder.view(-1, 1, 1, 1))
    loud = compress.quantize(backbone, images).header.quantization
    monkeypatch.setattr(procedure, "equalized", lambda model, *_, **__: Equalized(model, [], {}))
    monkeypatch.setattr(procedure, "TOLERANCE", 2.0)
    drowned = compress.quantize(backbone, images).header.quantization
    assert plain is not None
    assert loud is not None
    assert drowned is not None
    assert loud["map_errors"]["features.1"] < 1.5 * plain["map_errors"]["features.1"] < 0.1
    assert drowned["map_errors"]["features.1"] > 3 * loud["map_errors"]["features.1"]
