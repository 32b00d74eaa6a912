"""The fitted detector: its threshold, its file, and files that are not what they should be."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import compress
from anomaly import AnomalyError, Category, PatchCore, load_batches, open_dataset
from anomaly.threshold import held_out_scores, threshold_of
from compress.errors import CompressError
from compress.export import OnnxBackbone, export_onnx
from pipelines.detector_file import FittedDetector, load_detector, save_detector
from pipelines.fit import FitSettings, fit_detector
from pipelines.models import open_model

ARCH = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def grid(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Category:
    return open_dataset(str(tiny_dataset), cache=tmp_path_factory.mktemp("none"), only=("printed_grid",))[0]


@pytest.fixture(scope="module")
def backbone() -> compress.Backbone:
    return compress.create_backbone(ARCH, weights="none")


@pytest.fixture(scope="module")
def fitted(grid: Category, backbone: compress.Backbone) -> FittedDetector:
    return fit_detector(backbone, grid, FitSettings(bank_size=40, quantile=0.8), command="compress fit")


@pytest.fixture
def file(fitted: FittedDetector, tmp_path: Path) -> Path:
    save_detector(fitted, tmp_path / "grid.detector")
    return tmp_path / "grid.detector"


def test_the_threshold_by_hand() -> None:
    scores = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0])
    assert threshold_of(scores, 0.5).value == 5  # of 9: the 5th
    assert threshold_of(scores, 0.9).value == 9  # the 9th
    assert threshold_of(scores, 0.9).attained == 0.9
    beyond = threshold_of(scores, 0.99)  # would be the 10th
    assert (beyond.value, beyond.attained, beyond.images) == (9, 0.9, 9)


def test_new_scores_exceed_the_threshold_no_more_often_than_told() -> None:
    """The promise of split conformal prediction, over many draws of 19 scores and a new one."""
    drawn = torch.rand(4000, 20, generator=torch.Generator().manual_seed(0))
    alarms = [float(row[19]) > threshold_of(row[:19], 0.9).value for row in drawn]
    assert 0.085 < np.mean(alarms) < 0.115


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, float("nan")])
def test_quantiles_out_of_range_are_refused(quantile: float) -> None:
    with pytest.raises(AnomalyError, match="outside"):
        threshold_of(torch.ones(3), quantile)


def test_held_out_scores_are_those_of_a_bank_without_the_image(grid: Category, backbone: compress.Backbone) -> None:
    detector = PatchCore(backbone, mean=backbone.mean, std=backbone.std, bank_size=30, seed=5)
    patches = detector.training_patches(grid.train)
    scores = held_out_scores(detector, patches, size=30, folds=len(patches))  # leave one out
    for left_out in (0, 3):
        others = [sample for index, sample in enumerate(grid.train) if index != left_out]
        alone = PatchCore(backbone, mean=backbone.mean, std=backbone.std, bank_size=30, seed=5).fit(others)
        (batch,) = load_batches([grid.train[left_out]], 1)
        assert float(scores[left_out]) == pytest.approx(float(alone.predict(batch).scores), rel=1e-3)


def test_one_image_leaves_none_to_hold_out(backbone: compress.Backbone) -> None:
    detector = PatchCore(backbone, mean=backbone.mean, std=backbone.std)
    with pytest.raises(AnomalyError, match="1 good images leave none to hold out"):
        held_out_scores(detector, torch.zeros(1, 4, 4, 8), size=4)


def test_fitting_opens_no_test_image(grid: Category, backbone: compress.Backbone, fitted: FittedDetector) -> None:
    described = fitted.description
    assert described.threshold.images == described.images == len(grid.train)
    blind = Category(grid.dataset, grid.name, grid.train, grid.test[:1])
    again = fit_detector(backbone, blind, FitSettings(bank_size=40, quantile=0.8), command="compress fit")
    assert torch.equal(again.bank, fitted.bank)
    assert again.description.threshold == described.threshold


def test_too_few_images_for_the_quantile_are_told(
    grid: Category, backbone: compress.Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_detector(backbone, grid, FitSettings(bank_size=10), command="")
    assert "6 good images vouch for a quantile of 0.857 at most, not of 0.99" in capsys.readouterr().err


def test_a_saved_detector_predicts_as_it_did(fitted: FittedDetector, file: Path, grid: Category) -> None:
    loaded = load_detector(file)
    assert loaded.description == fitted.description
    (batch,) = load_batches(grid.test[:2], 2)
    before, after = (each.patchcore().predict(batch) for each in (fitted, loaded))
    assert torch.equal(before.scores, after.scores)
    assert torch.equal(before.maps, after.maps)


def test_an_onnx_backbone_goes_along(grid: Category, backbone: compress.Backbone, tmp_path: Path) -> None:
    export_onnx(backbone, tmp_path / "backbone.onnx")
    opened = open_model(str(tmp_path / "backbone.onnx"))
    assert isinstance(opened, OnnxBackbone)
    detector = fit_detector(opened, grid, FitSettings(bank_size=20), command="")
    save_detector(detector, tmp_path / "grid.detector")
    loaded = load_detector(tmp_path / "grid.detector")
    assert isinstance(loaded.backbone, OnnxBackbone)
    assert torch.equal(loaded.bank, detector.bank)
    with pytest.raises(CompressError, match="holds its own weights and taps"):
        open_model(str(tmp_path / "backbone.onnx"), weights="none")


def rewritten(file: Path, change: Callable[[dict[str, bytes]], None], method: int = zipfile.ZIP_STORED) -> Path:
    """The detector with its entries changed."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file


def described(change: dict[str, object]) -> Callable[[dict[str, bytes]], None]:
    def apply(entries: dict[str, bytes]) -> None:
        entries["detector.json"] = json.dumps({**json.loads(entries["detector.json"]), **change}).encode()

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries.pop("bank.safetensors"), "its parts are not those"),
        (lambda entries: entries.pop("detector.json"), "no detector of ours"),
        (lambda entries: entries.update({"../evil": b"x"}), "no detector of ours"),
        (lambda entries: entries.update({"/etc/passwd": b"x"}), "no detector of ours"),
        (lambda entries: entries.update({"bank.safetensors": pickle.dumps([1])}), "its parts are not those"),
        (lambda entries: entries.update({"detector.json": b"[1, 2]"}), "no detector of ours"),
        (lambda entries: entries.update({"detector.json": b"{" * 100_000}), "no detector of ours"),
        (described({"format": "prunecore-detector/9"}), "format prunecore-detector/9, this version reads"),
        (described({"format": "other/1"}), "no detector of ours"),
        (described({"threshold": {"value": -1, "quantile": 0.9, "attained": 0.9, "images": 3}}), "not above 0"),
        (described({"threshold": None}), "damaged or was changed"),
        (described({"threshold": {"value": 10**400}}), "damaged or was changed"),
    ],
)
def test_changed_files_are_refused(file: Path, change: Callable[[dict[str, bytes]], None], message: str) -> None:
    with pytest.raises(CompressError, match=message) as refused:
        load_detector(rewritten(file, change))
    assert "\n" not in str(refused.value)


def test_a_bomb_is_refused_before_it_is_unpacked(file: Path) -> None:
    bomb = rewritten(file, lambda entries: entries.update({"bank.safetensors": bytes(10**8)}), zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10**7
    with pytest.raises(CompressError, match="compressed or encrypted parts"):
        load_detector(bomb)


def test_damaged_and_foreign_files_are_refused(file: Path) -> None:
    whole = file.read_bytes()
    for place in range(0, len(whole), len(whole) // 23):
        file.write_bytes(whole[:place])
        with pytest.raises(CompressError, match="truncated, damaged or no detector"):
            load_detector(file)
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(CompressError, match=r"Bad CRC|parts"):
        load_detector(file)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "x")
    file.write_bytes(buffer.getvalue())
    with pytest.raises(CompressError, match="no detector of ours"):
        load_detector(file)
    with pytest.raises(CompressError, match="no such file"):
        load_detector(file.with_name("missing"))
