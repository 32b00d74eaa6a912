"""Sweeps in float and int8: rows apart, files real, each int8 model made once from all that it depends on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import compress
from compress import Calibration, CompressError
from pipelines import quantizing as quantizing_module
from pipelines.backbone_store import Request
from pipelines.image_sets import open_images
from pipelines.quantizing import Quantizing
from pipelines.report import write_report
from pipelines.slimming import Images
from pipelines.sweep import SweepOutcome, sweep
from pipelines.sweep_plan import SweepPlan

FLOAT, INT8 = "resnet18-magnitude-0.5-s0", "resnet18-magnitude-0.5-int8-s0"


@pytest.fixture(scope="module")
def plan(tiny_dataset: Path, photographs: Path) -> SweepPlan:
    return SweepPlan(
        ratios=(0.5,),
        precisions=("fp32", "int8"),
        calibration_count=8,
        images=(str(photographs),),
        datasets=(str(tiny_dataset),),
        categories=("woven_fabric",),
        weights="none",
        taps=("layer1",),
        bank_size=20,
    )


@pytest.fixture(scope="module")
def swept(plan: SweepPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    assert sweep(plan, folder, command="compress sweep") == SweepOutcome(run=2, kept=0, failed=0)
    return folder


def row(folder: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / f"{name}-tiny-woven_fabric.json").read_text())
    return loaded


def test_each_precision_has_a_row_and_a_file(swept: Path) -> None:
    plain, int8 = row(swept, FLOAT), row(swept, INT8)
    assert (plain["precision"], plain["runtime"]) == ("fp32", "pytorch")
    assert (int8["precision"], int8["runtime"]) == ("int8", "onnxruntime")
    assert plain["file_bytes"] == (swept / "backbones" / f"{FLOAT}.safetensors").stat().st_size
    assert int8["file_bytes"] == (swept / "backbones" / f"{INT8}.onnx").stat().st_size < plain["file_bytes"] / 2
    shared = ("arch", "method", "ratio", "scope", "params_used", "macs_used", "bank_size", "threads")
    assert [plain[name] for name in shared] == [int8[name] for name in shared]
    assert plain["ms_features"] > 0
    assert int8["ms_features"] > 0
    loaded = compress.load_onnx(swept / "backbones" / f"{INT8}.onnx")
    assert loaded.threads == int8["threads"], "both are timed on the same threads"
    assert loaded.header.quantization is not None
    assert (loaded.header.quantization["images"], loaded.header.quantization["calibration"]) == (8, "percentile")


def test_openvino_quantizes_and_runs_a_sweep(plan: SweepPlan, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    asked = dataclasses.replace(plan, backend="openvino")
    assert sweep(asked, tmp_path / "runs", command="compress sweep") == SweepOutcome(run=2, kept=0, failed=0)
    plain, int8 = row(tmp_path / "runs", FLOAT), row(tmp_path / "runs", INT8)
    assert (plain["runtime"], int8["runtime"]) == ("pytorch", "openvino")
    assert int8["precision"] == "int8"
    assert int8["ms_features"] > 0
    assert 0 <= int8["image_auroc"] <= 1
    loaded = compress.load_onnx(tmp_path / "runs" / "backbones" / f"{INT8}.onnx")
    assert loaded.threads == int8["threads"]
    assert loaded.header.quantization is not None
    assert (loaded.header.quantization["backend"], loaded.header.quantization["calibration"]) == ("openvino", "nncf")
    assert sweep(asked, tmp_path / "runs", command="") == SweepOutcome(run=0, kept=2, failed=0)
    write_report(tmp_path / "runs", tmp_path / "report", command="")
    assert "int8 in openvino" in (tmp_path / "report" / "report.md").read_text()


def test_a_finished_sweep_runs_nothing_again(plan: SweepPlan, runs: Path) -> None:
    assert sweep(plan, runs, command="") == SweepOutcome(run=0, kept=2, failed=0)


def test_what_was_quantized_before_a_kill_is_kept(plan: SweepPlan, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs / f"{INT8}-tiny-woven_fabric.json").unlink()
    monkeypatch.setattr(quantizing_module, "quantize", _never)
    assert sweep(plan, runs, command="") == SweepOutcome(run=1, kept=1, failed=0)
    assert row(runs, INT8)["precision"] == "int8"


def test_a_damaged_int8_file_is_made_again_from_the_float_one(plan: SweepPlan, runs: Path) -> None:
    file = runs / "backbones" / f"{INT8}.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    (runs / f"{INT8}-tiny-woven_fabric.json").unlink()
    before = (runs / "backbones" / f"{FLOAT}.safetensors").stat().st_mtime_ns
    assert sweep(plan, runs, command="") == SweepOutcome(run=1, kept=1, failed=0)
    assert file.read_bytes() == whole
    assert (runs / "backbones" / f"{FLOAT}.safetensors").stat().st_mtime_ns == before


def test_another_calibration_is_another_int8_run_only(plan: SweepPlan, runs: Path) -> None:
    other = dataclasses.replace(plan, calibration="minmax")
    assert sweep(other, runs, command="") == SweepOutcome(run=1, kept=1, failed=0)
    record = compress.load_onnx(runs / "backbones" / f"{INT8}.onnx").header.quantization
    assert record is not None
    assert record["calibration"] == "minmax"


def _never(*arguments: object, **options: object) -> None:
    raise AssertionError("what was quantized is quantized again")


def test_the_key_holds_all_that_int8_depends_on(photographs: Path) -> None:
    parent = compress.create_backbone("resnet18", weights="none", taps=("layer1",))
    images = open_images([photographs])

    def key(quantizing: Quantizing | None) -> str:
        return Request(parent, None, Images(), 0, quantizing).key

    first = Quantizing(images, Calibration(), (), "onnxruntime")
    others = [
        None,
        first,
        dataclasses.replace(first, images=open_images([photographs / "dark"])),
        dataclasses.replace(first, calibration=Calibration(percentile=99.9)),
        dataclasses.replace(first, calibration=Calibration("mse")),
        dataclasses.replace(first, calibration=Calibration(count=64)),
        dataclasses.replace(first, keep_float=("conv1",)),
        dataclasses.replace(first, backend="openvino"),
    ]
    assert len({key(each) for each in others}) == len(others)
    with pytest.raises(CompressError, match="NNCF chooses the ranges"):  # which then would be in the key, and not read
        dataclasses.replace(first, backend="openvino", calibration=Calibration("mse")).check()
    unread = dataclasses.replace(first, calibration=Calibration("mse", percentile=99.9))
    assert key(unread) == key(dataclasses.replace(first, calibration=Calibration("mse")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precisions": ("int8",)}, "with --images DIR or --calibration-images DIR"),
        ({"precisions": ("int4",)}, "unknown precision 'int4'"),
        ({"precisions": ()}, "the sweep has no precisions"),
        ({"calibration": "mse"}, "calibration, keep-float and backend are for int8"),
        ({"keep_float": ("conv1",)}, "calibration, keep-float and backend are for int8"),
        ({"precisions": ("int8",), "images": ("x",), "calibration": "kl"}, "unknown calibration 'kl'"),
        ({"precisions": ("int8",), "images": ("x",), "backend": "tensorrt"}, "unknown backend 'tensorrt'"),
        ({"precisions": ("int8",), "images": ("x",), "backend": "openvino", "calibration": "mse"}, "NNCF chooses"),
    ],
)
def test_precisions_that_cannot_be_had_are_refused_at_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(CompressError, match=message):
        SweepPlan(**given)


def test_too_few_images_to_calibrate_on_are_refused_before_any_work(
    plan: SweepPlan, photographs: Path, tmp_path: Path
) -> None:
    few = dataclasses.replace(plan, images=(str(photographs / "dark"),))
    with pytest.raises(CompressError, match="12 images are too few to calibrate on"):
        sweep(few, tmp_path / "runs", command="")
    assert not (tmp_path / "runs").exists()


def test_images_that_nothing_reads_are_still_refused(plan: SweepPlan, tmp_path: Path) -> None:
    idle = dataclasses.replace(plan, precisions=("fp32",), calibration_count=128)
    with pytest.raises(CompressError, match="nothing in this sweep reads images"):
        sweep(idle, tmp_path, command="")


def test_int8_may_be_calibrated_on_other_images(
    plan: SweepPlan, runs: Path, photographs: Path, tiny_dataset: Path
) -> None:
    folders = (str(tiny_dataset / "printed_grid" / "train"), str(photographs / "bright"))
    other = dataclasses.replace(plan, images=(), calibration_images=folders)
    assert sweep(other, runs, command="") == SweepOutcome(run=1, kept=1, failed=0), "float stays as it was"
    record = compress.load_onnx(runs / "backbones" / f"{INT8}.onnx").header.quantization
    assert record is not None
    assert record["images_fingerprint"] == open_images(folders).fingerprint
    idle = dataclasses.replace(other, images=(str(photographs),))
    with pytest.raises(CompressError, match="nothing in this sweep reads images"):
        sweep(idle, runs, command="")
    with pytest.raises(CompressError, match="the sweep is in float"):
        SweepPlan(calibration_images=("x",))


def test_layers_may_stay_float(plan: SweepPlan, runs: Path) -> None:
    mixed = dataclasses.replace(plan, keep_float=("conv1", "layer1.0"))
    assert sweep(mixed, runs, command="") == SweepOutcome(run=1, kept=1, failed=0), "float stays as it was"
    record = compress.load_onnx(runs / "backbones" / f"{INT8}.onnx").header.quantization
    assert record is not None
    assert {"conv1", "layer1.0.conv1", "layer1.0.conv2"} <= {*record["float"]}
    assert "layer1.1.conv1" not in record["float"]


def test_precisions_in_toml(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text('precisions = ["fp32", "int8"]\nimages = "x"\ncalibration = "mse"\n')
    plan = SweepPlan.from_toml(tmp_path / "sweep.toml")
    assert (plan.precisions, plan.calibration) == (("fp32", "int8"), "mse")
