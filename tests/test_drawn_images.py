"""Drawn images: the same for the same seed, varied, and in range."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress import CompressError
from compress.drawn_images import DRAWINGS, DrawnImages
from compress.drawn_images.scenes import RADIUS, _radii
from compress.drawn_images.textures import CONTRAST, LEVEL, texture

KINDS = pytest.mark.parametrize("kind", sorted(DRAWINGS))


@KINDS
def test_an_image_follows_from_seed_and_number_alone(kind: str) -> None:
    one, other = DrawnImages(kind, 5, size=64, seed=3), DrawnImages(kind, 9, size=64, seed=3)
    assert torch.equal(one[4], other[4])
    assert torch.equal(one[-1], one[4])
    assert not torch.equal(one[4], one[3])
    assert not torch.equal(one[4], DrawnImages(kind, 5, size=64, seed=4)[4])
    assert one.fingerprint == DrawnImages(kind, 5, size=64, seed=3).fingerprint
    assert len({one.fingerprint, other.fingerprint, DrawnImages(kind, 5, size=32, seed=3).fingerprint}) == 3


@KINDS
def test_they_are_a_sequence_of_rgb_images(kind: str) -> None:
    images = DrawnImages(kind, 3, size=48)
    assert len(images) == len(list(images)) == len(images[:]) == 3
    assert {(image.dtype, tuple(image.shape)) for image in images} == {(torch.uint8, (3, 48, 48))}
    with pytest.raises(IndexError):
        images[3]


def test_textures_and_scenes_are_two_kinds() -> None:
    assert DrawnImages("textures", 3).fingerprint != DrawnImages("scenes", 3).fingerprint
    with pytest.raises(CompressError, match="kind clouds can be drawn: choose textures, scenes"):
        DrawnImages("clouds", 3)


def test_scenes_have_edges_and_bare_stretches() -> None:
    """Unlike noise: most neighbours nearly alike, a few far apart."""
    for image in DrawnImages("scenes", 12, size=128):
        steps = (image.float()[:, :, 1:] - image.float()[:, :, :-1]).abs().amax(0)
        assert steps.quantile(0.5) < 0.5 * steps.quantile(0.99)
        assert steps.max() > 60


def test_leaves_of_all_sizes_fall_with_the_density_that_is_told() -> None:
    radii = np.concatenate([_radii(256, np.random.default_rng(seed)) for seed in range(400)])
    assert radii.min() >= RADIUS[0]
    assert radii.max() <= RADIUS[1] * 256
    # Of the density r^-2 between a and b, half lies below 2ab / (a + b).
    assert np.median(radii) == pytest.approx(2 / (1 / RADIUS[0] + 1 / (RADIUS[1] * 256)), rel=0.03)


def test_grey_and_coloured_faint_and_strong_dark_and_light() -> None:
    images = torch.stack(list(DrawnImages("textures", 60, size=64))).float()
    grey = (images[:, 0] == images[:, 1]).flatten(1).all(1)
    assert 0.25 < grey.float().mean() < 0.75
    contrast, level = images.std((2, 3)).max(1).values, images.mean((1, 2, 3))
    assert contrast.min() < 2 * CONTRAST[0]
    assert contrast.max() > 0.7 * CONTRAST[1]
    assert level.min() < 2 * LEVEL[0]
    assert level.max() > 0.75 * LEVEL[1]


def test_some_are_fine_and_some_are_coarse() -> None:
    images = torch.stack(list(DrawnImages("textures", 40, size=64))).float().mean(1)
    steps = (images[..., 1:] - images[..., :-1]).square().mean((1, 2)) / images.var((1, 2)).clamp_min(1e-6)
    assert steps.min() < 0.1  # neighbours alike: clouds
    assert steps.max() > 1.0  # neighbours unrelated: grain


def test_the_generator_is_the_callers() -> None:
    first, second = (texture(40, np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [({"count": 0}, "count 0"), ({"count": 1, "size": 31}, "size 31"), ({"count": 1, "seed": -1}, "seed -1")],
)
def test_impossible_textures_are_refused(given: dict[str, int], complaint: str) -> None:
    with pytest.raises(CompressError, match=f"{complaint} of textures must be at least"):
        DrawnImages("textures", **given)
