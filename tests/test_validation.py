"""The validation split: out of training images alone, disjoint, the same from the same seed, and worth ranking by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import compress
from anomaly import Category, Sample
from anomaly.datasets.generated import generate
from anomaly.datasets.mvtec import read_mvtec
from anomaly.images import load_image
from pipelines.evaluate import DetectorSettings
from pipelines.validation import ValidationSplit, validation_auroc, validation_split

ABSENT = (Sample(Path("no/such/good.png"), "good"), Sample(Path("no/such/bad.png"), "hole", Path("no/such/mask.png")))


def _category(folder: Path, count: int) -> Category:
    """A smooth grey surface under changing light. The files of its test split do not exist."""
    samples = []
    rows, columns = np.mgrid[:64, :64]
    for index in range(count):
        rng = np.random.default_rng(index)
        surface = 120 + 10 * np.sin(columns / 5 + rng.uniform(0, 6)) + rows / 8 + rng.normal(0, 2, (64, 64))
        file = folder / f"{index:03}.png"
        Image.fromarray(surface.astype(np.uint8)).save(file)
        samples.append(Sample(file, "good"))
    return Category("made", "surface", tuple(samples), ABSENT)


@pytest.fixture(scope="module")
def category(tmp_path_factory: pytest.TempPathFactory) -> Category:
    return _category(tmp_path_factory.mktemp("surface"), 24)


@pytest.fixture(scope="module")
def split(category: Category) -> ValidationSplit:
    return validation_split(category, seed=1)


def _held_out(category: Category, split: ValidationSplit) -> list[Sample]:
    return [sample for sample in category.train if sample not in split.fit]


def test_the_split_is_made_of_training_images_and_does_not_overlap(category: Category, split: ValidationSplit) -> None:
    held_out = _held_out(category, split)
    assert len(split.fit) == 16
    assert len(held_out) == 8
    assert set(split.fit) < set(category.train)
    assert torch.equal(split.good, torch.stack([load_image(sample.image) for sample in held_out]))


def test_defective_images_are_the_good_ones_with_a_defect(split: ValidationSplit) -> None:
    assert len(split.defective) == len(split.masks) == 200
    carriers = split.good.repeat(25, 1, 1, 1)
    changed = (split.defective != carriers).any(dim=1)
    assert not (changed & ~split.masks).any()
    assert changed.flatten(1).any(dim=1).all()
    assert len(torch.unique(split.masks.flatten(1), dim=0)) == 200  # no defect twice


def test_the_seed_decides(category: Category, split: ValidationSplit) -> None:
    again, other = validation_split(category, seed=1), validation_split(category, seed=2)
    assert again.fit == split.fit
    assert torch.equal(again.defective, split.defective)
    assert other.fit != split.fit


@pytest.mark.parametrize(("images", "fit", "held_out"), [(24, 16, 8), (60, 48, 12), (300, 200, 60), (700, 200, 100)])
def test_sizes(images: int, fit: int, held_out: int, category: Category) -> None:
    """Many samples of few files: names count here, not pixels."""
    files = [sample.image for sample in category.train]
    train = tuple(Sample(files[index % 24], "good") for index in range(images))
    split = validation_split(replace(category, train=train))
    assert (len(split.fit), len(split.good)) == (fit, held_out)
    assert len(split.defective) == -(-200 // held_out) * held_out


def test_the_test_split_is_never_opened(
    category: Category, split: ValidationSplit, resnet18: compress.Backbone
) -> None:
    """Its files do not exist: opening one would raise."""
    few = ValidationSplit(split.fit, split.good, split.defective[:8], split.masks[:8])
    found = validation_auroc(resnet18, few, DetectorSettings(coreset=0.02))
    assert not any(sample.image.exists() for sample in category.test)
    for value in (found.image, found.pixel):
        assert 0.5 < value <= 1  # even random weights see a bright patch on a smooth surface


def test_the_same_backbone_gets_the_same_auroc(split: ValidationSplit, resnet18: compress.Backbone) -> None:
    few = ValidationSplit(split.fit, split.good, split.defective[:8], split.masks[:8])
    first, again = (validation_auroc(resnet18, few, DetectorSettings(bank_size=50, seed=3)) for _ in range(2))
    assert first == again


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(compress.CompressError, match=r"made/surface has 23 training images, .* needs 24 \(8 .*, 16 "):
        validation_split(_category(tmp_path, 23))


def test_it_ranks_pretrained_weights_above_pruned_and_random_ones_and_does_not_saturate(tmp_path: Path) -> None:
    (surface,) = read_mvtec(generate(tmp_path / "data", seed=5, surfaces=["printed_grid"], train=30, good=1))
    split = validation_split(surface)
    split = replace(split, defective=split.defective[:64], masks=split.masks[:64])
    dense = compress.create_backbone("efficientnet_lite0", weights="offline")
    backbones = {
        "dense": dense,
        "pruned": compress.prune(dense, ratio=0.5),
        "random": compress.create_backbone("efficientnet_lite0", weights="none"),
    }
    found = {name: validation_auroc(net, split, DetectorSettings()) for name, net in backbones.items()}
    for level in ("image", "pixel"):
        dense_auroc = getattr(found["dense"], level)
        assert 0.8 < dense_auroc < 0.995
        assert dense_auroc > getattr(found["pruned"], level) + 0.1
        assert dense_auroc > getattr(found["random"], level) + 0.1
