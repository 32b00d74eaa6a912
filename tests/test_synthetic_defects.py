"""Synthetic defects: where the mask says, nowhere else, the same from the same seed, and never invisible."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from torch import Tensor

from anomaly import AnomalyError
from anomaly.synthetic_defects import AREA, OPACITY, SHAPES, SHIFT, paint_defect, paint_defects, perlin_noise

SIDE = 224


@pytest.fixture(scope="module")
def noise() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(60, 180, (12, 3, SIDE, SIDE), generator=generator).to(torch.uint8)


def _flat(level: int) -> Tensor:
    return torch.full((3, SIDE, SIDE), level, dtype=torch.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_change_under_the_mask_and_nowhere_else(shape: str, noise: Tensor) -> None:
    before = noise.clone()
    for seed in range(20):
        painted, mask = paint_defect(noise[0], noise[1], np.random.default_rng(seed), shape=shape)
        assert painted.dtype == torch.uint8
        assert painted.shape == (3, SIDE, SIDE)
        assert mask.dtype == torch.bool
        changed = (painted != noise[0]).any(dim=0)
        assert not (changed & ~mask).any()
        assert changed[mask].float().mean() > 0.9  # a pixel may meet its own value by chance
    assert torch.equal(noise, before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
def test_a_flat_image_shows_its_defect_too(shape: str, level: int) -> None:
    for seed in range(20):
        painted, mask = paint_defect(_flat(level), _flat(level), np.random.default_rng(seed), shape=shape)
        change = (painted.int() - level).abs()
        assert change[:, mask].min() >= int(OPACITY[0] * SHIFT[0]) > 1
        assert change[:, mask].max() <= SHIFT[1] + 1
        assert change[:, ~mask].max() == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_run_from_small_to_medium(shape: str) -> None:
    shares = [float(SHAPES[shape](np.random.default_rng(seed), SIDE).sum()) / SIDE**2 for seed in range(300)]
    low, high = (AREA[0], AREA[1]) if shape != "scar" else (15 * 2 / SIDE**2, 70 * 10 / SIDE**2)
    assert 0.85 * low <= min(shares) < 2 * low
    assert high / 2 < max(shares) <= 1.15 * high


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [64, 224])
def test_a_form_fits_the_image_and_has_no_empty_margin(shape: str, side: int) -> None:
    for seed in range(100):
        form = SHAPES[shape](np.random.default_rng(seed), side)
        assert max(form.shape) <= side
        assert form[0].any()
        assert form[-1].any()
        assert form[:, 0].any()
        assert form[:, -1].any()


def test_patches_and_scars_are_one_piece() -> None:
    for shape in ("patch", "scar"):
        for seed in range(100):
            assert label(SHAPES[shape](np.random.default_rng(seed), SIDE), np.ones((3, 3)))[1] == 1


def test_defects_lie_everywhere(noise: Tensor) -> None:
    _, masks = paint_defects(noise[:1].expand(300, -1, -1, -1), np.random.default_rng(0))
    touched = masks.any(dim=0)
    assert touched.float().mean() > 0.8
    assert touched[[0, -1]].any()  # right up to the edges
    assert touched[:, [0, -1]].any()


def test_the_seed_decides(noise: Tensor) -> None:
    first, again, other = (paint_defects(noise, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert all(mask.any() for mask in first[1])


def test_the_filling_comes_from_the_source(noise: Tensor) -> None:
    """A striped source leaves its stripes: the defect is texture, not one colour."""
    stripes = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    stripes[:, :, ::2] = 200
    painted, mask = paint_defect(_flat(100), stripes, np.random.default_rng(0), shape="patch")
    rows, columns = torch.nonzero(mask, as_tuple=True)
    inside = painted[0, rows[0], columns.min() : columns.max() + 1].float()
    assert (inside[1:] - inside[:-1]).abs().min() > 60


def test_a_hundred_images_take_less_than_two_seconds(noise: Tensor) -> None:
    batch = noise.repeat(9, 1, 1, 1)[:100]
    start = time.perf_counter()
    paint_defects(batch, np.random.default_rng(0))
    assert time.perf_counter() - start < 2


def test_perlin_noise_is_zero_at_the_corners_and_smooth_between() -> None:
    noise = perlin_noise(np.random.default_rng(0), 60, (3, 5))
    assert noise.shape == (60, 60)
    assert np.abs(noise[::20, ::12]).max() < 1e-12
    assert 0.1 < noise.std() < 0.5
    assert np.abs(noise).max() < 1
    assert max(np.abs(np.diff(noise, axis=axis)).max() for axis in (0, 1)) < 0.3


def test_perlin_noise_by_hand() -> None:
    """One cell whose four slopes all point right: u weighted by the fade curve, 6 t^5 - 15 t^4 + 10 t^3."""

    class PointingRight:
        def uniform(self, low: float, high: float, size: tuple[int, int]) -> np.ndarray:
            return np.zeros(size)

    noise = perlin_noise(PointingRight(), 4, (1, 1))  # type: ignore[arg-type]
    t = np.arange(4) / 4
    fade = 6 * t**5 - 15 * t**4 + 10 * t**3
    assert np.allclose(noise, np.broadcast_to(t * (1 - fade) + (t - 1) * fade, (4, 4)))


def test_an_image_too_small_is_refused() -> None:
    with pytest.raises(AnomalyError, match="image of 224 x 40 pixels: synthetic defects need 64 x 64"):
        paint_defects(torch.zeros(1, 3, 40, 224, dtype=torch.uint8), np.random.default_rng(0))
