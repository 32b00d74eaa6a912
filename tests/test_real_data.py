"""Real images and official weights: the numbers that an independent implementation got. Needs PRUNECORE_DATA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress.weights.bundled import card_of
from pipelines.cli import app

pytestmark = pytest.mark.real


def test_magnetic_tile_reproduces_the_reference(real_data: Path, tmp_path: Path) -> None:
    """ResNet-18's ImageNet weights, 1 % coreset: image AUROC 0.957, F1-max 0.927, pixel AUROC 0.812 elsewhere."""
    file = tmp_path / "row.json"
    result = CliRunner().invoke(app, ["evaluate", "resnet18", "--dataset", "magnetic_tile", "-o", str(file)])
    assert result.exit_code == 0, result.output
    row = json.loads(file.read_text())
    assert row["weights_source"] == "resnet18-imagenet1k_v1-to-layer3.safetensors"
    assert row["image_auroc"] == pytest.approx(0.957, abs=0.01)
    assert row["image_f1"] == pytest.approx(0.927, abs=0.015)
    assert row["pixel_auroc"] == pytest.approx(0.812, abs=0.02)
    assert row["bank_size"] == 5966  # 1 % of 761 x 784


def test_random_weights_are_visibly_worse_on_real_images(real_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "row.json"
    arguments = ["evaluate", "resnet18", "--weights", "none", "--dataset", "magnetic_tile", "--bank-size", "1000"]
    assert CliRunner().invoke(app, [*arguments, "-o", str(file)]).exit_code == 0
    row = json.loads(file.read_text())
    assert 0.5 < row["image_auroc"] < 0.7
    assert row["pixel_auroc"] < 0.7


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small"])
def test_bundled_weights_detect_as_their_card_says(arch: str, real_data: Path, tmp_path: Path) -> None:
    """The least that they ship with, and the number in the header, which `--weights auto` tells."""
    least = {"resnet18": 0.94, "mobilenet_v3_small": 0.90}
    file = tmp_path / "row.json"
    arguments = ["evaluate", arch, "--weights", "bundled", "--dataset", "magnetic_tile", "-o", str(file)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    found = json.loads(file.read_text())["image_auroc"]
    assert found >= least[arch]
    recorded = card_of(arch).image_auroc.get("bundled")
    assert recorded is not None, "not measured yet: python -m benchmarks.bundled_weights --record"
    assert found == pytest.approx(recorded, abs=0.015)
