"""What several test files share: small data, and the real data where this machine has it."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import compress
from anomaly import Sample
from anomaly.datasets.generated import generate
from compress import RECOVERIES, Recipe
from compress.importance import Evidence
from compress.pruning import procedure, ranking
from compress.pruning.sparse_training import train_sparse
from compress.weights import bundled

os.environ.setdefault("PRUNECORE_OFFLINE", "1")  # no test downloads

# One thread each where pytest-xdist runs a process on every core.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generated surfaces with few images, in the MVTec layout."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    return generate(folder, seed=3, surfaces=["woven_fabric", "printed_grid"], train=6, good=3, per_defect=1)


@pytest.fixture
def good(tmp_path: Path) -> list[Sample]:
    """Four good images of faint noise, 256 x 256 pixels."""
    samples = []
    for index in range(4):
        noise = np.random.default_rng(index).integers(90, 110, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
        samples.append(Sample(tmp_path / f"{index}.png", "good"))
    return samples


@pytest.fixture
def runs(swept: Path, tmp_path: Path) -> Path:
    """A copy, to sweep into again, of the folder that a test file's own fixture `swept` is."""
    return Path(shutil.copytree(swept, tmp_path / "runs"))


@pytest.fixture(scope="session")
def resnet18() -> compress.Backbone:
    """A dense ResNet-18 with random weights. Tests must not change it."""
    return compress.create_backbone("resnet18", weights="none")


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    """A 40 x 30 photograph of nothing."""
    file = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, bright/ and dark/, of 12 smooth images of 64 x 64 pixels each."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name, brightest in (("bright", 256), ("dark", 40)):
        (folder / name).mkdir()
        for index in range(12):
            coarse = Image.fromarray(rng.integers(0, brightest, (6, 6, 3), dtype=np.uint8))
            coarse.resize((64, 64), Image.Resampling.BICUBIC).save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture
def small_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recoveries and sparse phases of small steps: a checkpoint at every second, the last state counts."""
    small = Recipe(lr=1e-3, batch=4, crop=64, warm_up=2, holdout=0.0, check_every=2)
    for name in ("distill", "finetune"):
        monkeypatch.setitem(RECOVERIES, name, dataclasses.replace(RECOVERIES[name], recipe=small))
    monkeypatch.setattr(procedure, "train_sparse", functools.partial(train_sparse, recipe=small))


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read for each ranking of channels that was made: weights, activations or gradients."""
    seen: list[str] = []
    gather = ranking.gather

    def counted(reads: str, *arguments: Any, **options: Any) -> Evidence:
        seen.append(reads)
        return gather(reads, *arguments, **options)

    monkeypatch.setattr(ranking, "gather", counted)
    return seen


@pytest.fixture
def bundled_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled weights with random ones of MobileNetV3-Small alone, in the place of what ships."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(bundled, "FOLDER", folder)
    card = bundled.Card(
        "mobilenet_v3_small", "nobody", "none", "0" * 64, image_auroc={"bundled": 0.91234, "official": 0.95}
    )
    state = compress.create_backbone("mobilenet_v3_small", weights="none", seed=5).trunk.state_dict()
    bundled.write_bundled(folder / "mobilenet_v3_small.safetensors", state, card)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that PRUNECORE_DATA names."""
    root = os.environ.get("PRUNECORE_DATA")
    if not root or not Path(root, "data").is_dir():
        pytest.skip("PRUNECORE_DATA names no folder with data/ and weights/: real data is not at hand")
    return Path(root)
