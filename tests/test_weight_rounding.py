"""Weights that are rounded together change what a layer computes less than weights that are rounded one by one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

import compress
from compress.export import to_graph
from compress.export.views import normalised_views
from compress.quantization.affine import round_trip_weights, weight_scales
from compress.quantization.second_moments import patches, second_moments
from compress.quantization.weight_rounding import DAMPING, rounded_filters, rounded_together

Floats = np.ndarray


def correlated(groups: int, size: int, seed: int = 0) -> Floats:
    """E[x x^T] of inputs of which neighbours go together, as pixels do."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(groups, size, 4 * size)).cumsum(axis=1)
    return np.asarray(seen @ seen.swapaxes(1, 2) / (4 * size))


def change(weights: Floats, rounded: Floats, moments: Floats) -> float:
    """The mean squared change of what the filters compute."""
    groups, size = moments.shape[:2]
    off = (rounded - weights).reshape(groups, -1, size)
    return float(np.einsum("gok,gkl,gol->", off, moments, off))


def one_by_one(weights: Floats, moments: Floats) -> Floats:
    """The paper's equations 2 and 3 for one group, with the inverse of what is left of H at each step."""
    size = len(moments)
    damped = moments + DAMPING * np.trace(moments) / size * np.eye(size)
    left, scales = weights.copy(), weight_scales(weights)
    top = np.abs(weights).argmax(axis=1)
    rows = np.arange(len(weights))
    waiting = list(np.argsort(-np.diag(moments), kind="stable"))
    while waiting:
        first, inverse = waiting[0], np.linalg.inv(damped[np.ix_(waiting, waiting)])
        level = scales * np.clip(np.rint(left[:, first] / scales), -127, 127)
        left[:, waiting] -= np.outer((left[:, first] - level) / inverse[0, 0], inverse[0])
        left[:, first] = level
        left[rows, top] = weights[rows, top]
        waiting.pop(0)
    return left


def test_two_inputs_that_are_the_same_by_hand() -> None:
    """0.4 + 0.4 of one step are nothing when each is rounded alone; what the first loses the second makes up for."""
    moments = np.array([[[9.0, 0, 0], [0, 1, 1], [0, 1, 1]]])
    weights = np.array([[127.0, 0.4, 0.4]])
    assert round_trip_weights(weights).tolist() == [[127, 0, 0]]
    assert rounded_together(weights, moments).tolist() == [[127, 0, 1]]


def test_it_is_what_the_papers_equations_give() -> None:
    weights = np.random.default_rng(1).normal(size=(5, 150))  # more than are passed on at once
    moments = correlated(1, 150)
    np.testing.assert_allclose(rounded_together(weights, moments), one_by_one(weights, moments[0]), rtol=1e-9)


@pytest.mark.parametrize(("groups", "channels"), [(1, 6), (4, 2), (8, 1)])
def test_the_layer_changes_less_on_the_same_levels(groups: int, channels: int) -> None:
    weights = np.random.default_rng(2).normal(size=(8, channels, 3, 3))
    moments = correlated(groups, 9 * channels)
    rounded = rounded_together(weights, moments)
    assert change(weights, rounded, moments) < 0.5 * change(weights, round_trip_weights(weights), moments)
    np.testing.assert_allclose(round_trip_weights(rounded), rounded, rtol=1e-12)
    np.testing.assert_allclose(weight_scales(rounded), weight_scales(weights), rtol=1e-12)


def test_inputs_that_do_not_go_together_or_are_never_there_get_the_nearest_levels() -> None:
    weights = np.random.default_rng(3).normal(size=(4, 6, 1, 1))
    for moments in (np.diag([1.0, 2, 3, 4, 5, 6])[None], np.zeros((1, 6, 6))):
        np.testing.assert_allclose(rounded_together(weights, moments), round_trip_weights(weights), rtol=1e-12)


def test_a_computed_weight_is_left_alone_and_one_without_moments_is_rounded_to_the_nearest() -> None:
    weights = np.random.default_rng(4).normal(size=(4, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], "first"),
        helper.make_node("Identity", ["w2"], ["computed"], "computing"),
        helper.make_node("Conv", ["images", "computed"], ["b"], "second"),
    ]
    constants = [numpy_helper.from_array(weights, name) for name in ("w", "w2")]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 4, 4])
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [], constants))
    found = rounded_filters(model, {})
    assert list(found) == ["w"]
    np.testing.assert_allclose(found["w"], round_trip_weights(weights.astype(np.float64)))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_filters_times_patches_are_the_convolution(groups: int) -> None:
    values = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    weights = torch.randn(8, 4 // groups, 3, 2, dtype=torch.float64)
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], group=groups, pads=[0, 1, 2, 3], strides=[1, 2], dilations=[2, 1]
    )
    seen = patches(values, node, weights.shape)
    found = weights.reshape(groups, 8 // groups, -1) @ seen
    padded = F.pad(values, (1, 3, 0, 2))
    expected = F.conv2d(padded, weights, stride=(1, 2), dilation=(2, 1), groups=groups)
    torch.testing.assert_close(found.flatten(0, 1), expected.transpose(0, 1).flatten(1))


def test_moments_are_those_of_what_a_layer_sees() -> None:
    backbone = compress.create_backbone("resnet18", weights="none", taps=("layer1",))
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator) for _ in range(6)]
    model = to_graph(backbone).model
    places = [0, 2, 3, 4, 5]
    found = second_moments(model, backbone.spec, images, places)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    views = normalised_views(images, places, backbone.spec)
    shape = next(tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name == first.input[1])
    seen = patches(views, first, shape).double()
    np.testing.assert_allclose(found[first.input[1]], (seen @ seen.mT / seen.shape[2]).numpy(), atol=1e-4)
    assert {name: moments.shape for name, moments in found.items()} == {
        node.input[1]: (1, size, size)
        for node, size in zip(_convolutions(model), [147, 576, 576, 576, 576], strict=True)
    }


def _convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]
