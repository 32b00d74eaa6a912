"""ONNX backbones where a model is asked for: evaluated, profiled, told apart on disk, and not for changing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import compress
from anomaly import Category, open_dataset
from anomaly.features import request_of
from anomaly.patch_embedding import PATCHCORE
from compress import Calibration, CompressError, OnnxBackbone
from pipelines.cli import app
from pipelines.evaluate import DetectorSettings
from pipelines.image_sets import open_images
from pipelines.models import open_model, open_torch_model

runner = CliRunner()


@pytest.fixture(scope="module")
def pruned() -> compress.Backbone:
    dense = compress.create_backbone("resnet18", weights="none", taps=("layer1",))
    return compress.prune(dense, ratio=0.5, method="magnitude")


@pytest.fixture(scope="module")
def int8(pruned: compress.Backbone, photographs: Path) -> OnnxBackbone:
    return compress.quantize(pruned, open_images([photographs]), calibration=Calibration("minmax", count=8))


@pytest.fixture(scope="module")
def file(int8: OnnxBackbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "slim-int8.onnx"
    compress.save_onnx(int8, path)
    return path


@pytest.fixture(scope="module")
def fabric(tiny_dataset: Path) -> Category:
    (category,) = open_dataset(str(tiny_dataset), cache=tiny_dataset, only=("woven_fabric",))
    return category


def test_evaluate_takes_it(file: Path, pruned: compress.Backbone, tiny_dataset: Path, tmp_path: Path) -> None:
    options = ["--dataset", str(tiny_dataset), "--category", "woven_fabric", "--bank-size", "20", "--timing"]
    result = runner.invoke(app, ["evaluate", str(file), *options, "-o", str(tmp_path / "row.json")])
    assert result.exit_code == 0, result.output
    row: dict[str, Any] = json.loads((tmp_path / "row.json").read_text())
    assert (row["precision"], row["runtime"], row["method"], row["ratio"]) == ("int8", "onnxruntime", "magnitude", 0.5)
    assert row["file_bytes"] == file.stat().st_size
    cost = compress.cost_of(pruned)
    assert [row["params_full"], row["params_used"], row["macs_used"]] == [
        cost.params_full,
        cost.params_used,
        cost.macs_used,
    ]
    assert row["threads"] == torch.get_num_threads() == compress.load_onnx(file).threads
    assert row["ms_features"] > 0
    assert 0 <= row["image_auroc"] <= 1


def test_profile_takes_it(file: Path, pruned: compress.Backbone) -> None:
    told = json.loads(runner.invoke(app, ["profile", str(file), "--json"]).output)
    assert (told["precision"], told["runtime"], told["calibration"]) == ("int8", "onnxruntime", "minmax")
    assert told["calibration_images"] == 8
    assert told["float_layers"] == []
    assert told["file_bytes"] == file.stat().st_size
    assert told["channels"] == pruned.feature_info.channels()
    assert pruned.spec.pruning is not None
    assert {name: after for name, (_, after) in told["layers"].items()} == {
        name: len(kept) for name, kept in pruned.spec.pruning.kept.items()
    }
    assert all(before == 2 * after for before, after in told["layers"].values())
    assert runner.invoke(app, ["profile", str(file)]).exit_code == 0


@pytest.mark.parametrize("command", ["prune", "quantize", "sensitivity", "distill"])
def test_what_changes_layers_refuses_it(command: str, file: Path, photographs: Path, tmp_path: Path) -> None:
    words = ["--arch", str(file), "--ratio", "0.5"] if command == "prune" else [str(file)]
    result = runner.invoke(app, [command, *words, "--images", str(photographs), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert "its layers cannot be changed: give the artifact it was made from" in result.output


def test_it_has_weights_and_taps_of_its_own(file: Path, tmp_path: Path) -> None:
    assert isinstance(open_model(str(file)), OnnxBackbone)
    for given in ({"weights": "none"}, {"taps": ("layer2",)}):
        with pytest.raises(CompressError, match="holds its own weights and taps"):
            open_model(str(file), **given)  # type: ignore[arg-type]
    with pytest.raises(CompressError, match="no such file"):
        open_model(str(tmp_path / "missing.onnx"))
    with pytest.raises(CompressError, match="cannot be changed"):
        open_torch_model(str(file))


def test_features_on_disk_are_those_of_one_model(
    int8: OnnxBackbone, pruned: compress.Backbone, fabric: Category, photographs: Path, tmp_path: Path
) -> None:
    other = compress.quantize(pruned, open_images([photographs]), calibration=Calibration("percentile", 99.0, 8))
    same = OnnxBackbone(int8.model, int8.header)
    requests = [
        request_of(each, each.mean, each.std, PATCHCORE, fabric.train)["weights"] for each in (int8, same, other)
    ]
    assert requests[0] == requests[1] != requests[2]
    settings = DetectorSettings(bank_size=20, features=tmp_path)
    banks = [settings.fit(each, fabric.train).bank.vectors for each in (int8, other, int8)]
    assert len(list(tmp_path.glob("*.features"))) == 2, "a file for each model"
    assert torch.equal(banks[0], banks[2])
    assert not torch.equal(banks[0], banks[1])
