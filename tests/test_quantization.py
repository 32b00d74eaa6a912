"""The arithmetic of int8: formulas by hand and by property, streams, calibrators, bias correction, the search."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.quant_utils import compute_scale_zp

from compress import CALIBRATORS, Calibration, CompressError
from compress.export.runtimes import open_model
from compress.quantization.affine import (
    Range,
    Scale,
    activation_scale,
    dequantize,
    quantize,
    representable,
    round_trip_weights,
    weight_scales,
)
from compress.quantization.bias_correction import corrected, mean_shift
from compress.quantization.histogram import BINS, Histogram
from compress.quantization.search import Limit, fewest_float
from compress.quantization.streaming import useful

# Activations are that large or zero; what is smaller than any of them falls to either side of it.
VALUES = st.floats(-1e6, 1e6, width=32).map(lambda value: value if abs(value) > 1e-20 else 0.0)
BOUNDS = st.tuples(st.floats(-1e4, 0), st.floats(0, 1e4)).filter(lambda pair: pair[1] - pair[0] > 1e-3)


def test_scale_and_zero_point_by_hand() -> None:
    scale = activation_scale(Range(-1.0, 4.1))
    assert scale == Scale(pytest.approx(0.02), 50)
    assert quantize(np.array([-9.0, -1.0, 0.0, 0.029, 4.1, 9.0]), scale).tolist() == [0, 0, 50, 51, 255, 255]
    assert dequantize(np.array([0, 50, 255], np.uint8), scale) == pytest.approx([-1.0, 0.0, 4.1])
    assert activation_scale(Range(0.0, 0.0)) == Scale(1.0, 0)
    assert activation_scale(Range(2.0, 5.1)) == Scale(pytest.approx(0.02), 0), "zero is always representable"


@given(BOUNDS, st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_the_round_trip_stays_within_half_a_step(bounds: tuple[float, float], shares: list[float]) -> None:
    scale = activation_scale(Range(*bounds))
    low, high = representable(scale)
    values = low + np.array(shares) * (high - low)
    errors = np.abs(dequantize(quantize(values, scale), scale) - values)
    assert errors.max() <= scale.step / 2 * (1 + 1e-6)
    assert dequantize(quantize(np.zeros(1), scale), scale) == 0
    assert low == pytest.approx(bounds[0], abs=scale.step / 2 * (1 + 1e-6))
    assert high == pytest.approx(bounds[1], abs=scale.step / 2 * (1 + 1e-6))


@given(BOUNDS)
def test_onnx_runtime_finds_the_same_scale(bounds: tuple[float, float]) -> None:
    low, high = (np.float32(bound) for bound in bounds)
    zero_point, step = compute_scale_zp(low, high, np.uint8(0), np.uint8(255))
    own = activation_scale(Range(float(low), float(high)))
    assert own.step == pytest.approx(float(step), rel=1e-5)
    assert abs(own.zero_point - int(zero_point)) <= 1  # a half may round either way in float32


@given(BOUNDS, arrays(np.float32, 64, elements=st.floats(-1e4, 1e4, width=32)))
@settings(max_examples=25, deadline=None)
def test_onnxs_own_nodes_round_as_the_formulas_say(bounds: tuple[float, float], values: np.ndarray) -> None:
    scale = activation_scale(Range(*bounds))
    step, zero = np.float32(scale.step), np.uint8(scale.zero_point)
    found = open_model(_round_trip_model(step, zero).SerializeToString())(values)[0]
    exact = Scale(float(step), int(zero))
    expected = dequantize(quantize(values.astype(np.float64), exact), exact)
    # float32 division may land on the other side of a half: one step then, and never more.
    assert np.abs(found - expected).max() <= step * 1.001
    assert np.mean(np.abs(found - expected) > step / 2) < 0.1


@given(arrays(np.float64, (4, 3, 3, 3), elements=st.floats(-1e3, 1e3)))
def test_weights_stay_within_half_a_step_of_their_channel(weights: np.ndarray) -> None:
    half = weight_scales(weights) / 2
    errors = np.abs(round_trip_weights(weights) - weights).reshape(4, -1).max(axis=1)
    assert (errors <= half * (1 + 1e-9)).all()
    assert (round_trip_weights(-weights) == -round_trip_weights(weights)).all(), "symmetric"


@given(st.lists(st.lists(VALUES, min_size=1, max_size=40), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_stream_is_counted_as_one_batch_would_be(batches: list[list[float]]) -> None:
    stream, whole = Histogram(), Histogram()
    for batch in batches:
        stream.add(np.array(batch, np.float32))
    values = np.array([value for batch in batches for value in batch], np.float32)
    whole.add(values)
    assert (stream.low, stream.high, stream.total) == (values.min(), values.max(), len(values))
    assert stream.counts.sum() == len(values)
    assert len(stream.counts) <= BINS
    assert stream.zeros == np.count_nonzero(values == 0)
    inside = np.histogram(values.astype(np.float64), bins=stream.edges)[0]
    assert stream.counts.tolist() == inside.tolist()
    if stream.width == whole.width:
        assert stream.counts.tolist() == whole.counts.tolist()


def test_a_histograms_memory_does_not_grow_with_its_range() -> None:
    histogram = Histogram()
    rng = np.random.default_rng(0)
    for power in range(-6, 7):
        histogram.add((10.0**power * rng.standard_normal(1000)).astype(np.float32))
    assert BINS // 4 <= len(histogram.counts) <= BINS
    assert histogram.total == 13_000


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CompressError, match="not finite"):
        Histogram().add(np.array([1.0, np.nan], np.float32))


def _filled(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return histogram


NORMAL = np.random.default_rng(0).standard_normal(200_000)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_every_calibrator_keeps_the_bulk_inside_what_was_seen(name: str) -> None:
    low, high = Calibration(name).range_of(_filled(NORMAL))
    assert NORMAL.min() - 1e-2 <= low <= -2.0
    assert 2.0 <= high <= NORMAL.max() + 1e-2


@pytest.mark.parametrize("name", ["percentile", "entropy", "mse"])
def test_an_outlier_is_clipped_but_by_minmax(name: str) -> None:
    histogram = _filled(np.append(np.abs(NORMAL), 100.0))
    for _ in range(20):  # one in four million: fewer, and clipping it would cost more than coarse steps
        histogram.add(np.abs(NORMAL).astype(np.float32))
    assert CALIBRATORS["minmax"](histogram) == Range(0.0, 100.0)
    assert Calibration(name, percentile=99.99).range_of(histogram).high < 20


@pytest.mark.parametrize("name", CALIBRATORS)
def test_relus_zeros_do_not_move_the_upper_bound_far(name: str) -> None:
    values = np.maximum(NORMAL, 0)
    low, high = Calibration(name).range_of(_filled(values))
    assert low == 0
    assert high > 2.5


def test_percentile_by_hand() -> None:
    low, high = Calibration("percentile", percentile=98.0).range_of(_filled(np.arange(-500.0, 500.0)))
    assert (low, high) == (pytest.approx(-490, abs=1), pytest.approx(490, abs=1))


def test_mse_has_the_least_error_of_a_fine_search() -> None:
    values = np.append(np.random.default_rng(1).laplace(size=100_000), [60.0])
    histogram = _filled(np.abs(values))

    def error(high: float) -> float:
        scale = activation_scale(Range(0.0, high))
        return float(np.square(dequantize(quantize(np.abs(values), scale), scale) - np.abs(values)).sum())

    best = min(error(high) for high in np.linspace(3, 60, 400))
    assert error(CALIBRATORS["mse"](histogram).high) <= best * 1.1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"method": "minmaxx"}, "did you mean minmax"),
        ({"percentile": 50.0}, "outside 90 to 100"),
        ({"count": 2}, "at least 8"),
    ],
)
def test_odd_calibrations_are_refused(request_: dict[str, object], message: str) -> None:
    with pytest.raises(CompressError, match=message):
        Calibration(**request_)  # type: ignore[arg-type]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_bias_correction_puts_the_mean_right(groups: int) -> None:
    rng = np.random.default_rng(groups)
    weights = rng.standard_normal((8, 4 // groups, 1, 2))
    images = np.repeat(rng.random((4, 4, 1, 1)).astype(np.float32) + 3, 5, axis=2).repeat(5, axis=3)
    means = images.mean(axis=(0, 2, 3), dtype=np.float64)
    exact, plain, right = (
        open_model(model.SerializeToString())(images)[0].mean(axis=(0, 2, 3))
        for model in (
            _conv_model(weights, groups),
            _conv_model(round_trip_weights(weights), groups),
            corrected(_conv_model(weights, groups), {"w": round_trip_weights(weights)}, {"images": means}),
        )
    )
    assert np.abs(right - exact).max() < 1e-5 < np.abs(plain - exact).max()
    assert mean_shift(round_trip_weights(weights) - weights, means) == pytest.approx(plain - exact, abs=1e-5)


def test_a_float_layer_is_left_alone() -> None:
    model = _conv_model(np.random.default_rng(0).standard_normal((8, 4, 1, 1)), 1)
    assert corrected(model, {"w": np.ones((8, 4, 1, 1))}, {"images": np.ones(4)}, ["conv"]) == model


def test_what_a_hard_swish_cannot_see_gets_no_levels() -> None:
    nodes = [helper.make_node("HardSwish", ["a"], ["b"]), helper.make_node("HardSigmoid", ["b"], ["c"], alpha=1 / 6)]
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph(nodes, "g", [], [output]))
    ranges = useful(model, {name: Range(-9.0, 9.0) for name in "abc"})
    assert ranges["a"] == Range(-3.0, 9.0)
    assert ranges["b"] == Range(pytest.approx(-3.0, abs=1e-5), pytest.approx(3.0, abs=1e-5))
    assert ranges["c"] == Range(-9.0, 9.0), "the graph's output is read by everyone"


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_search_finds_the_fewest_layers_of_a_falling_loss(most: int, needed: int) -> None:
    needed = min(needed, most)
    tried: list[int] = []

    def loss(count: int) -> float:
        tried.append(count)
        return 0.0 if count >= needed else 1.0

    found = fewest_float(most, lambda count: count, Limit("loss", 0.5, loss))
    assert (found.best, found.count) == (needed, needed)
    assert len(tried) == len(set(tried)) <= 2 * math.log2(max(needed, 1)) + 3


def test_a_limit_that_nothing_meets_is_refused_with_one_that_can_be_met() -> None:
    with pytest.raises(CompressError, match=r"loss of 0\.1 cannot be met: the least, 0\.2000, comes with 8 layers"):
        fewest_float(8, lambda count: count, Limit("loss", 0.1, lambda count: 1 - count / 10))


def _round_trip_model(step: np.float32, zero: np.uint8) -> onnx.ModelProto:
    constants = [numpy_helper.from_array(np.array(each), name) for each, name in ((step, "s"), (zero, "z"))]
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"]),
    ]
    return _model(nodes, constants, [64], "r")


def _conv_model(weights: np.ndarray, groups: int) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["images", "w"], ["y"], "conv", group=groups)
    return _model([node], [numpy_helper.from_array(weights.astype(np.float32), "w")], ["n", 4, 5, 5], "y")


def _model(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], shape: list[int | str], output: str
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
