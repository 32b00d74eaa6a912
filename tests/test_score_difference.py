"""What int8 does to a detector's scores: measured against the float network, told, and recorded in every file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import compress
from anomaly import Category, open_dataset
from anomaly.datasets.generated import generate
from compress.errors import CompressError
from compress.export import OnnxBackbone
from pipelines import validation
from pipelines.cli import app
from pipelines.detector_file import load_detector, save_detector
from pipelines.evaluate import DetectorSettings
from pipelines.export import export_detector
from pipelines.fit import FitSettings, fit_detector
from pipelines.image_sets import open_images
from pipelines.score_difference import compared, require_origin, score_difference
from prunecore_runtime import Detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float network, the int8 file made from it, and a surface with enough images for a validation split."""
    place = tmp_path_factory.mktemp("int8")
    data = generate(place / "data", seed=3, surfaces=["printed_grid"], train=24, good=1, per_defect=1)
    backbone = compress.create_backbone("resnet18", weights="none", taps=("layer1",))
    compress.save(backbone, place / "net.safetensors")
    compress.save(
        compress.create_backbone("resnet18", weights="none", taps=("layer1",), seed=1), place / "b.safetensors"
    )
    images = open_images([data / "printed_grid" / "train"])
    compress.save_onnx(compress.quantize(backbone, images), place / "net.onnx")
    return place


@pytest.fixture
def surface(folder: Path) -> Category:
    return open_dataset(str(folder / "data"), cache=folder)[0]


@pytest.fixture(autouse=True)
def few_defects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "DEFECTIVE", 8)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_difference_by_hand() -> None:
    float_scores = np.array([1.0, 2.0, 3.0, 5.0, 9.0], np.float32)
    int8_scores = np.array([1.0, 2.4, 3.0, 2.8, 8.6], np.float32)
    found = compared(float_scores, int8_scores, 2, 0.5)  # thresholds 2 and 2.4, the 2nd smallest of 2
    assert (found.good, found.defective, found.changed) == (2, 3, 0)
    assert found.mean == pytest.approx((0.4 + 2.2 + 0.4) / 5 / 8)
    assert found.largest == pytest.approx(2.2 / 8)
    assert found.rank_correlation == pytest.approx(1 - 6 * 2 / (5 * 24))  # 3 and 4 have changed places
    shifted = compared(float_scores, np.array([1.0, 4.0, 3.0, 5.0, 9.0], np.float32), 2, 0.5)
    assert shifted.changed == 1, "3 lies below the new threshold of 4"
    crossed = compared(float_scores, np.array([2.4, 1.0, 3.0, 5.0, 9.0], np.float32), 2, 0.3)
    assert crossed.changed == 0, "the good images have changed sides, and are not counted"
    assert (
        "7.5% of their range, 27.5% at most; rank correlation 0.9000; 0 of 3 painted defects change sides"
        in found.told()
    )


@pytest.mark.parametrize("constant", ["float", "int8"])
def test_scores_that_are_all_equal_are_refused(constant: str) -> None:
    scores = {"float": np.array([1.0, 2.0, 3.0], np.float32), "int8": np.array([1.0, 2.0, 3.0], np.float32)}
    scores[constant] = np.full(3, 2, np.float32)
    with pytest.raises(CompressError, match=f"the {constant} scores of 3 good and painted images are all 2.*: give"):
        compared(scores["float"], scores["int8"], 2, 0.5)


def test_a_network_against_itself_differs_by_nothing(folder: Path, surface: Category) -> None:
    backbone = compress.load_backbone(folder / "net.safetensors")
    split = validation.validation_split(surface)
    settings = DetectorSettings(bank_size=50)
    scores, _ = validation.validation_scores(backbone, split, settings)
    again, _ = validation.validation_scores(backbone, split, settings)
    found = compared(scores, again, len(split.good), 0.9)
    assert (found.mean, found.largest, found.changed) == (0, 0, 0)
    assert found.rank_correlation == pytest.approx(1)


def test_only_the_network_that_it_was_made_from_is_compared_with(folder: Path, surface: Category) -> None:
    int8 = compress.load_onnx(folder / "net.onnx")
    require_origin(int8, compress.load_backbone(folder / "net.safetensors"))
    other = compress.load_backbone(folder / "b.safetensors")
    with pytest.raises(CompressError, match="is not the network that the int8 resnet18 was made from"):
        score_difference(other, int8, surface, DetectorSettings(bank_size=50), 0.9)
    changed = compress.load_backbone(folder / "net.safetensors")
    with torch.no_grad():
        next(changed.parameters()).add_(1e-3)
    with pytest.raises(CompressError, match="is not the network"):
        require_origin(int8, changed)


def test_what_int8_changes_is_told_and_goes_along_to_the_exported_file(folder: Path, tmp_path: Path) -> None:
    file, exported = tmp_path / "grid.detector", tmp_path / "grid.onnx"
    asked = ("fit", "--backbone", folder / "net.onnx", "--dataset", folder / "data", "--bank-size", 50, "-o", file)
    plain = run(*asked)
    assert plain.exit_code == 0, plain.output
    assert "how int8 changes the scores is not known: --float" in " ".join(plain.stderr.split())
    assert load_detector(file).description.int8_difference is None
    bare = run("export", file, "-o", exported)
    assert "was not compared with float: compress fit --float FILE does" in " ".join(bare.stderr.split())

    fitted = run(*asked, "--float", folder / "net.safetensors")
    assert fitted.exit_code == 0, fitted.output
    difference = load_detector(file).description.int8_difference
    assert difference is not None
    assert (difference.good, difference.defective) == (8, 8)
    assert 0 < difference.mean <= difference.largest < 1
    assert difference.rank_correlation > 0.5
    assert difference.told() in " ".join(fitted.stdout.split())
    told = run("export", file, "-o", exported, "--bank-precision", "int8")
    assert told.exit_code == 0, told.output
    assert difference.told() in " ".join(told.stdout.split())
    assert "the bank being int8 and Python's float32" in " ".join(told.stdout.split())
    metadata = Detector(exported).metadata
    assert metadata["int8_difference"]["largest"] == difference.largest
    assert 1e-4 < metadata["parity"]["score"] < metadata["parity"]["tolerance"] == 0.05


@pytest.mark.parametrize(
    ("backbone", "original", "message"),
    [
        ("net.safetensors", "b.safetensors", "this resnet18 is fp32, and only an int8 one is compared"),
        ("net.onnx", "b.safetensors", "is not the network"),
        ("net.onnx", "net.onnx", "is no artifact: give the .safetensors that compress quantize read"),
    ],
)
def test_float_without_int8_and_another_network_are_refused(
    folder: Path, tmp_path: Path, backbone: str, original: str, message: str
) -> None:
    asked = ("fit", "--dataset", folder / "data", "-o", tmp_path / "x.detector")
    refused = run(*asked, "--backbone", folder / backbone, "--float", folder / original)
    assert refused.exit_code == 2
    assert message in " ".join(refused.stderr.split())
    assert not (tmp_path / "x.detector").exists()


def test_an_architecture_is_no_float_network(folder: Path, tmp_path: Path) -> None:
    asked = ("fit", "--dataset", folder / "data", "-o", tmp_path / "x.detector", "--backbone", folder / "net.onnx")
    refused = run(*asked, "--float", "resnet18")
    assert refused.exit_code == 2
    assert "compress prune --ratio 0 makes one" in " ".join(refused.stderr.split())
    made = run("prune", "--arch", "resnet18", "--weights", "none", "--ratio", 0, "-o", tmp_path / "dense.safetensors")
    assert made.exit_code == 0, made.output
    assert compress.load_backbone(tmp_path / "dense.safetensors").spec.arch == "resnet18"


def test_a_float_onnx_network_is_not_compared_as_if_it_were_int8(
    folder: Path, tmp_path: Path, surface: Category
) -> None:
    original = compress.load_backbone(folder / "net.safetensors")
    compress.export_onnx(original, tmp_path / "float.onnx")
    for backbone in (original, compress.load_onnx(tmp_path / "float.onnx")):
        with pytest.raises(CompressError, match="this resnet18 is fp32, and only an int8 one"):
            fit_detector(backbone, surface, FitSettings(bank_size=20), command="", original=original)


def test_a_detector_of_an_earlier_version_knows_no_difference(folder: Path, tmp_path: Path, surface: Category) -> None:
    int8 = compress.load_onnx(folder / "net.onnx")
    assert isinstance(int8, OnnxBackbone)
    save_detector(fit_detector(int8, surface, FitSettings(bank_size=20), command=""), tmp_path / "new.detector")
    with zipfile.ZipFile(tmp_path / "new.detector") as new, zipfile.ZipFile(tmp_path / "old.detector", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name == "detector.json":
                described = json.loads(content)
                del described["int8_difference"]
                content = json.dumps(described).encode()
            old.writestr(name, content)
    loaded = load_detector(tmp_path / "old.detector")
    assert loaded.description.int8_difference is None
    export_detector(loaded, tmp_path / "old.onnx")
    assert Detector(tmp_path / "old.onnx").metadata["int8_difference"] is None
