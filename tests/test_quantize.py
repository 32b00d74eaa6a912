"""The verb quantize: int8 maps near the float ones, mixed precision, its record, its refusals, its command."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from processor import needs_exact_int8
from torch import Tensor
from typer.testing import CliRunner

import compress
from compress import BACKENDS, Calibration, CompressError, MaxDrop, OnnxBackbone
from compress.export.graph import Graph, to_graph
from compress.export.runtimes import open_model
from compress.quantization import procedure
from compress.quantization.affine import Range
from compress.quantization.layers import matching_layers, nodes_of, roundable_layers
from compress.quantization.qdq import rounded
from compress.quantization.ranking import map_error, maps_of, rank_layers
from pipelines import quantizing, validation
from pipelines.cli import app

LAYERS = [
    "conv1",
    "maxpool",
    "layer1.0.conv1",
    "layer1.0.conv2",
    "layer1.0/add",
    "layer1.1.conv1",
    "layer1.1.conv2",
    "layer1.1/add",
]


@pytest.fixture(scope="module")
def backbone() -> compress.Backbone:
    return compress.create_backbone("resnet18", weights="none", taps=("layer1",))


@pytest.fixture(scope="module")
def graph(backbone: compress.Backbone) -> Graph:
    return to_graph(backbone)


@pytest.fixture
def traced_once(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes ten seconds, and gives the same graph each time."""
    monkeypatch.setattr(procedure, "to_graph", lambda backbone, opset: graph)


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(20, 3, 8, 8, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 255)
    return list(smooth.to(torch.uint8))


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize("method", compress.CALIBRATORS)
def test_int8_maps_are_near_the_float_ones(backbone: compress.Backbone, images: list[Tensor], method: str) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    int8 = compress.quantize(backbone, images, calibration=Calibration(method))
    record = int8.header.quantization
    assert record is not None
    assert 1e-4 < record["map_errors"]["layer1"] < 0.15
    assert (int8.precision, record["calibration"], record["images"]) == ("int8", method, 12)
    assert record["float_deviation"] < 1e-4
    assert record["float"] == {}
    assert int8.cost == compress.cost_of(backbone)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.usefixtures("traced_once")
def test_the_file_is_small_and_gives_the_same_maps(
    backbone: compress.Backbone, images: list[Tensor], tmp_path: Path
) -> None:
    int8 = compress.quantize(backbone, images)
    compress.save_onnx(int8, tmp_path / "int8.onnx")
    loaded = compress.load_onnx(tmp_path / "int8.onnx")
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(one, other) for one, other in zip(int8(x), loaded(x), strict=True))
    assert loaded.header == int8.header
    size = (tmp_path / "int8.onnx").stat().st_size
    assert size == loaded.file_bytes < 0.3 * 4 * int8.cost.params_used
    kinds = {tensor.data_type for tensor in loaded.model.graph.initializer if len(tensor.dims) == 4}
    assert kinds == {3}, "every convolution's weights are INT8"
    onnx.checker.check_model(str(tmp_path / "int8.onnx"), full_check=True)


def test_layers_are_named_as_in_the_parent_and_chosen_by_pattern(graph: Graph) -> None:
    assert roundable_layers(graph.model) == LAYERS
    assert matching_layers(graph.model, ["layer1.1"]) == LAYERS[5:]
    assert matching_layers(graph.model, ["*conv2", "conv1"]) == ["conv1", "layer1.0.conv2", "layer1.1.conv2"]
    assert nodes_of(graph.model, ["conv1"]) == ["conv1", "relu"], "a ReLU belongs to the layer before it"
    with pytest.raises(CompressError, match=r"no layer is called 'layer7\.\*'.*conv1, maxpool"):
        matching_layers(graph.model, ["layer1", "layer7.*"])


@pytest.mark.usefixtures("traced_once")
def test_layers_that_are_asked_for_stay_float(backbone: compress.Backbone, images: list[Tensor]) -> None:
    int8 = compress.quantize(backbone, images, keep_float=["layer1.0.*"])
    assert int8.header.quantization is not None
    assert int8.header.quantization["float"] == dict.fromkeys(LAYERS[2:4], "asked for")
    kinds = {t.name: t.data_type for t in int8.model.graph.initializer if len(t.dims) == 4}
    assert {name for name, kind in kinds.items() if kind == 1} == {f"{layer}.weight" for layer in LAYERS[2:4]}


@pytest.mark.usefixtures("traced_once")
def test_all_in_float_is_float(backbone: compress.Backbone, images: list[Tensor]) -> None:
    same = compress.quantize(backbone, images, keep_float=["*"])
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(same(x)[0], backbone(x)[0], atol=1e-4)


@needs_exact_int8
def test_a_float_layer_between_int8_ones_keeps_its_weights(graph: Graph) -> None:
    """ONNX Runtime rounds such weights itself, with one scale for all channels, where nothing stops it."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "layer1.0.conv1.weight")
    uneven = (10.0 ** (-np.arange(64) / 16)).reshape(-1, 1, 1, 1)  # the last channel's weights: 1/9,000 of the first's
    weight.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(weight) * uneven).astype(np.float32), weight.name))
    mixed = rounded(model, wide_ranges(model), nodes_of(model, ["layer1.0.conv1"]))
    images = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(mixed.SerializeToString(), options)
    fused = open_model(mixed.SerializeToString())
    assert map_error(plain.run(None, {"images": images}), fused(images)) < 0.01


def wide_ranges(model: onnx.ModelProto) -> dict[str, Range]:
    """The same range for each value, from zero on behind a ReLU."""
    values = {value for node in model.graph.node for value in (*node.input, *node.output)}
    ranges = dict.fromkeys(values, Range(-8.0, 8.0))
    return ranges | {node.output[0]: Range(0.0, 8.0) for node in model.graph.node if node.op_type == "Relu"}


def test_the_ranking_finds_the_layer_that_hurts(graph: Graph, images: list[Tensor]) -> None:
    ranges = wide_ranges(graph.model)
    ranges["relu_1"] = Range(0.0, 0.01)  # what layer1.0.conv1's ReLU makes, clipped to nearly nothing
    check = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    reference = maps_of(graph.model, check)
    ranking = rank_layers(
        LAYERS,
        lambda float_layers: rounded(graph.model, ranges, nodes_of(graph.model, float_layers)),
        reference,
        check,
    )
    assert ranking[0].layer in ("layer1.0.conv1", "layer1.0.conv2")  # the one that writes the value, or that reads it
    assert sorted(each.layer for each in ranking) == sorted(LAYERS)
    assert ranking[0].error > 3 * ranking[2].error
    assert ranking[0].sqnr == pytest.approx(-20 * np.log10(ranking[0].error))
    assert map_error(reference, reference) == 0


@pytest.mark.usefixtures("traced_once")
def test_the_largest_error_leaves_the_worst_layers_in_float(backbone: compress.Backbone, images: list[Tensor]) -> None:
    plain = compress.quantize(backbone, images)
    assert plain.header.quantization is not None
    wanted = plain.header.quantization["map_errors"]["layer1"] * 0.8
    mixed = compress.quantize(backbone, images, max_error=wanted)
    record = mixed.header.quantization
    assert record is not None
    assert record["map_errors"]["layer1"] <= wanted
    worst = [layer for layer, _ in record["ranking"]]
    assert list(record["float"]) == worst[: len(record["float"])]
    assert 0 < len(record["float"]) < len(LAYERS)
    assert all("hurts" in reason for reason in record["float"].values())
    assert record["trials"][0][0] == 0
    json.dumps(record)


@pytest.mark.usefixtures("traced_once")
def test_any_measure_may_limit_the_drop(backbone: compress.Backbone, images: list[Tensor]) -> None:
    def loss(candidate: OnnxBackbone) -> float:
        return 0.1 if len(candidate.model.graph.initializer) > 0 and _int8_layers(candidate) > 3 else 0.0

    mixed = compress.quantize(backbone, images, max_drop=MaxDrop("drop", 0.05, loss))
    assert _int8_layers(mixed) <= 3


def _int8_layers(backbone: OnnxBackbone) -> int:
    return sum(len(tensor.dims) == 4 and tensor.data_type == 3 for tensor in backbone.model.graph.initializer)


class Endless(Sequence[Tensor]):
    """A thousand images of which one exists at a time."""

    def __init__(self) -> None:
        self.opened = 0

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, place: Any) -> Any:
        self.opened += 1
        return torch.full((3, 40, 40), place % 256, dtype=torch.uint8)


@pytest.mark.usefixtures("traced_once")
def test_images_are_read_as_they_are_needed_and_spread_evenly(backbone: compress.Backbone) -> None:
    stream = Endless()
    int8 = compress.quantize(backbone, stream, calibration=Calibration(count=16))
    assert stream.opened == 24 + 16, "each that calibrates is read again, for the second moments of what layers see"
    assert int8.header.quantization is not None
    assert int8.header.quantization["images"] == 16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": []}, "0 images are too few to calibrate on: 16 are needed"),
        ({"images": [torch.zeros(3, 40, 40, dtype=torch.uint8)] * 15}, "15 images are too few"),
        ({"images": [torch.zeros(3, 40, 40)] * 16}, "give uint8 RGB"),
        ({"backend": "tensorrt"}, "unknown backend 'tensorrt'"),
        ({"opset": 11}, "opset 11 is outside 18 to 23"),
        ({"max_error": 1.5}, "outside"),
        ({"max_error": 0.1, "max_drop": MaxDrop("drop", 0.1, lambda candidate: 0.0)}, "two searches"),
    ],
)
def test_odd_requests_are_refused_before_any_work(
    backbone: compress.Backbone, images: list[Tensor], given: dict[str, Any], message: str
) -> None:
    request = {"images": images, **given}
    with pytest.raises(CompressError, match=message):
        compress.quantize(backbone, request.pop("images"), **request)


@pytest.mark.usefixtures("traced_once")
def test_broken_maps_are_refused_with_the_layers_that_mend_them(
    backbone: compress.Backbone, images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names in the message are tried: they must bring what it says."""
    whole = procedure.useful

    def clipped(model: Any, ranges: Any) -> Any:
        return {**whole(model, ranges), "relu_3": Range(0.0, 1e-3)}  # behind layer1.1.conv1

    monkeypatch.setattr(procedure, "useful", clipped)
    monkeypatch.setattr(procedure, "TOLERANCE", 0.05)
    with pytest.raises(CompressError, match=r"a relative error of 0\.\d\d, 0\.05 is allowed") as refused:
        compress.quantize(backbone, images)
    names = re.findall(r"--keep-float (\S+)", str(refused.value))
    assert any(name.startswith("layer1.1.") for name in names)
    told = re.search(r"brings it to (0\.\d\d)", str(refused.value))
    int8 = compress.quantize(backbone, images, keep_float=names)
    assert int8.header.quantization is not None
    assert told
    assert max(int8.header.quantization["map_errors"].values()) == pytest.approx(float(told[1]), abs=0.006)


@pytest.mark.usefixtures("traced_once")
def test_broken_maps_that_no_layer_mends_are_refused_with_another_cure(
    backbone: compress.Backbone, images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procedure, "TOLERANCE", 1e-9)
    with pytest.raises(CompressError, match=r"is allowed: give more images to calibrate on"):
        compress.quantize(backbone, images, keep_float=["conv1"])


@pytest.mark.usefixtures("traced_once")
def test_openvino_makes_the_same_kind_of_file(
    backbone: compress.Backbone, images: list[Tensor], tmp_path: Path
) -> None:
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    extensions = logging.getLogger("torch.utils.cpp_extension")
    level = extensions.level
    int8 = compress.quantize(backbone, images, backend="openvino", keep_float=["conv1"])
    assert extensions.level == level, "only what NNCF itself makes it tell is silenced"
    compress.save_onnx(int8, tmp_path / "int8.onnx")
    loaded = compress.load_onnx(tmp_path / "int8.onnx")
    assert (loaded.runtime, loaded.precision) == ("openvino", "int8")
    assert loaded.header.quantization is not None
    assert loaded.header.quantization["map_errors"]["layer1"] < 0.15
    other = compress.load_onnx(tmp_path / "int8.onnx", runtime="onnxruntime")
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert map_error([loaded(x)[0].numpy()], [other(x)[0].numpy()]) < 0.15
    kinds = {t.name: t.data_type for t in int8.model.graph.initializer if len(t.dims) == 4}
    assert list(kinds.values()).count(3) == 4


def test_a_missing_extra_is_named(
    backbone: compress.Backbone, images: list[Tensor], monkeypatch: pytest.MonkeyPatch, traced_once: None
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(CompressError, match=r"pip install 'prunecore\[openvino\]'"):
        compress.quantize(backbone, images, backend="openvino")
    with pytest.raises(CompressError, match="NNCF chooses the ranges: leave calibration and percentile out"):
        compress.quantize(backbone, images, backend="openvino", calibration=compress.Calibration("mse"))
    assert set(BACKENDS) == {"onnxruntime", "openvino"}


runner = CliRunner()


@pytest.mark.usefixtures("traced_once")
def test_the_command_writes_a_file_and_tells_what_it_cost(photographs: Path, tmp_path: Path) -> None:
    file = tmp_path / "int8.onnx"
    arguments = ["quantize", "resnet18", "--weights", "none", "--taps", "layer1", "--images", str(photographs)]
    result = runner.invoke(app, [*arguments, "-o", str(file), "--keep-float", "conv1", "--keep-float", "layer1.1.*"])
    assert result.exit_code == 0, result.output
    loaded = compress.load_onnx(file)
    assert loaded.header.quantization is not None
    assert list(loaded.header.quantization["float"]) == ["conv1", "layer1.1.conv1", "layer1.1.conv2"]
    assert f"{loaded.file_bytes:,}" in result.output
    assert "times as fast" in result.output
    assert "asked for" in result.output


@pytest.fixture
def surface(tmp_path: Path) -> Path:
    """A dataset of 24 good grey surfaces; its test images are none, and must not be opened."""
    folder = tmp_path / "surface"
    rows, columns = np.mgrid[:64, :64]
    for index in range(24):
        rng = np.random.default_rng(index)
        pixels = 120 + 10 * np.sin(columns / 5 + rng.uniform(0, 6)) + rows / 8 + rng.normal(0, 2, (64, 64))
        file = folder / "train" / "good" / f"{index:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    for kind in ("good", "hole"):
        (folder / "test" / kind).mkdir(parents=True)
        (folder / "test" / kind / "000.png").write_bytes(b"not an image")
    return folder


@pytest.mark.usefixtures("traced_once")
def test_the_largest_drop_of_validation_auroc_leaves_the_layer_that_hurts_in_float(
    surface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = procedure.useful

    def clipped(model: Any, ranges: Any) -> Any:
        return {**whole(model, ranges), "relu": Range(0.0, 1e4)}  # what conv1 gives to maxpool: nothing is left of it

    monkeypatch.setattr(procedure, "useful", clipped)
    monkeypatch.setattr(validation, "DEFECTIVE", 24)  # of 200, which take a minute
    file = tmp_path / "int8.onnx"
    arguments = ["quantize", "resnet18", "--weights", "none", "--taps", "layer1", "--images", str(surface / "train")]
    result = runner.invoke(app, [*arguments, "--max-drop", "0.02", "--dataset", str(surface), "-o", str(file)])
    assert result.exit_code == 0, result.output
    record = compress.load_onnx(file).header.quantization
    assert record is not None
    ((layer, why),) = record["float"].items()
    assert layer == "conv1"
    assert why.startswith("hurts")
    (_, dropped), (_, kept) = record["trials"]
    assert dropped > 0.02 >= kept
    assert record["limit"] == {"title": "drop of validation image AUROC", "limit": 0.02}
    assert f"0 layers in float: drop of validation image AUROC {dropped:.4f} (allowed 0.02)" in result.output


def test_latency_is_measured_without_gradients(monkeypatch: pytest.MonkeyPatch, backbone: compress.Backbone) -> None:
    modes = []

    class Watched:
        spec = backbone.spec

        def __call__(self, image: Tensor) -> None:
            modes.append(torch.is_inference_mode_enabled())

    monkeypatch.setattr(quantizing, "PAUSE", 0)
    (latency,) = quantizing.alternating_latency([Watched()], rounds=2)  # type: ignore[list-item]
    assert min(latency) > 0
    assert len(modes) == 3 * (quantizing.UNTIMED + quantizing.TIMED)
    assert all(modes)  # what gradients would need is not kept: it takes PyTorch a quarter longer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a folder of them with --images"),
        (["--images", "missing"], "does not exist"),
        (["--max-drop", "0.01"], "--max-drop without --dataset"),
        (["--max-drop", "1.5", "--dataset", "generated"], "outside [0, 1)"),
        (["--precision", "int4"], "neither int8 nor fp32"),
        (
            ["--precision", "fp32", "--keep-float", "conv1"],
            "--keep-float has no effect, --precision fp32 rounds nothing",
        ),
        (["--precision", "fp32", "--backend", "openvino"], "--backend has no effect"),
        (["--calibration", "minmax", "--percentile", "99"], "--percentile has no effect, --calibration minmax"),
        (["--backend", "openvino", "--calibration", "mse"], "with backend openvino NNCF chooses the ranges"),
        (["--backend", "openvino", "--percentile", "99"], "leave calibration and percentile out"),
        (["--category", "bottle"], "--category has no effect, there is no --dataset"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    base = ["quantize", "resnet18", "--weights", "none", "--taps", "layer1", "-o", str(tmp_path / "x.onnx")]
    result = runner.invoke(app, [*base, *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert not list(tmp_path.iterdir())
