"""Synthetic defects painted into good images, with their masks: something to validate on where every image is good.

Three shapes, filled with what stands at another place of the same or of another good image:
`patch` and `scar` after CutPaste (Li et al. 2021, arXiv 2104.04015, section 2.2), and `perlin`, whose outline is a
threshold of Perlin noise as in DRAEM (Zavrtanik et al. 2021, arXiv 2108.07610, section 3.3). They are meant to rank
backbones, so size, contrast and opacity vary widely: few defects are found by all detectors or by none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly.errors import AnomalyError

Mask = NDArray[np.bool_]

# Tuned on the training images of the generated surfaces: image AUROC of a dense ResNet-18 from 0.85 to 0.98.
MIN_SIDE = 64  # pixels of an image; below it the larger defects would not fit
AREA = (0.002, 0.04)  # of the image, of a patch or of spots
SCAR_WIDTH, SCAR_LENGTH = (2.0, 10.0), (15.0, 70.0)  # pixels in an image of 224
OPACITY = (0.3, 1.0)  # DRAEM's beta, from 0.1 there
SHIFT = (8.0, 80.0)  # grey levels by which the filling is lighter or darker; never 0: a copy of a flat surface is flat
CONTRAST = 0.2  # the filling's contrast is multiplied by 1 +- this


def patch(rng: np.random.Generator, side: int) -> Mask:
    """A rectangle of 0.2 to 4 % of the image's area, up to 3.3 times as long as wide (CutPaste: 2 to 15 %)."""
    area, aspect = _log_uniform(rng, *AREA) * side**2, _log_uniform(rng, 0.3, 3.3)
    return np.ones((max(round((area / aspect) ** 0.5), 2), max(round((area * aspect) ** 0.5), 2)), dtype=np.bool_)


def scar(rng: np.random.Generator, side: int) -> Mask:
    """A thin bar at any angle, 2 to 10 pixels wide and 15 to 70 long in an image of 224 (CutPaste-Scar)."""
    width, length = rng.uniform(*SCAR_WIDTH) * side / 224, rng.uniform(*SCAR_LENGTH) * side / 224
    angle = rng.uniform(0, np.pi)
    reach = length / 2 + width
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return _trimmed((np.abs(along) <= length / 2) & (np.abs(across) <= width / 2))


def perlin(rng: np.random.Generator, side: int) -> Mask:
    """One or several ragged spots of 0.2 to 4 % of the image's area: the peaks of Perlin noise around a point.

    DRAEM thresholds noise over the whole image at 0.5, which marks large parts of it. Here the noise falls off with the
    distance from the middle, and the threshold is the one that leaves the wanted area.
    """
    area = _log_uniform(rng, *AREA) * side**2
    window = max(round((4 * area) ** 0.5), 6)
    noise = perlin_noise(rng, window, (int(rng.integers(2, 7)), int(rng.integers(2, 7))))
    y, x = np.mgrid[-1 : 1 : window * 1j, -1 : 1 : window * 1j]
    level = noise - (x**2 + y**2)
    return _trimmed(level > np.quantile(level, 1 - area / window**2))


SHAPES: Mapping[str, Callable[[np.random.Generator, int], Mask]] = {"patch": patch, "scar": scar, "perlin": perlin}


def paint_defect(image: Tensor, source: Tensor, rng: np.random.Generator, *, shape: str) -> tuple[Tensor, Tensor]:
    """A copy of `image` with one defect, and the mask of the pixels that it covers.

    Args:
        image: uint8 RGB (3, H, W), H and W at least 64.
        source: uint8 RGB of the same size, where the filling is cut out; may be `image` itself.
        shape: a name in `SHAPES`.

    Returns:
        The painted image, uint8 (3, H, W), and the mask, bool (H, W).

    Raises:
        AnomalyError: an image too small.
    """
    height, width = image.shape[1:]
    if min(height, width) < MIN_SIDE:
        raise AnomalyError(f"image of {width} x {height} pixels: synthetic defects need {MIN_SIDE} x {MIN_SIDE}")
    form = SHAPES[shape](rng, min(height, width))
    here, there = _window(rng, form, height, width), _window(rng, form, height, width)
    before = image[here].numpy().astype(np.float32)
    filling = _jittered(source[there].numpy().astype(np.float32), rng)
    opacity = np.float32(rng.uniform(*OPACITY)) * form
    painted, mask = image.clone(), torch.zeros(height, width, dtype=torch.bool)
    painted[here] = torch.from_numpy((before + opacity * (filling - before)).round().astype(np.uint8))
    mask[here[1:]] = torch.from_numpy(form)
    return painted, mask


def paint_defects(images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One defect in a copy of each of `images`, uint8 RGB (N, 3, H, W), and their masks, bool (N, H, W).

    The shape is drawn anew for each; the filling comes from the same image or, as often, from any of them.

    Raises:
        AnomalyError: images too small.
    """
    painted, masks = torch.empty_like(images), torch.empty(images[:, 0].shape, dtype=torch.bool)
    names = list(SHAPES)
    for index, image in enumerate(images):
        source = image if rng.random() < 0.5 else images[int(rng.integers(len(images)))]
        shape = names[int(rng.integers(len(names)))]
        painted[index], masks[index] = paint_defect(image, source, rng, shape=shape)
    return painted, masks


def perlin_noise(rng: np.random.Generator, size: int, cells: tuple[int, int]) -> NDArray[np.float64]:
    """Gradient noise (Perlin 1985, with the fade curve of 2002) on `cells` = (rows, columns): (size, size), in (-1, 1).

    Zero at every corner of a cell.
    """
    rows, columns = cells
    angles = rng.uniform(0, 2 * np.pi, (rows + 1, columns + 1))
    v = np.arange(size)[:, None] * (rows / size)
    u = np.arange(size)[None, :] * (columns / size)
    row, column = v.astype(int), u.astype(int)
    v, u = v - row, u - column

    def from_corner(down: int, right: int) -> NDArray[np.float64]:
        angle = angles[row + down, column + right]
        slope: NDArray[np.float64] = np.cos(angle) * (u - right) + np.sin(angle) * (v - down)
        return slope

    fade_v, fade_u = (t**3 * (t * (6 * t - 15) + 10) for t in (v, u))
    top = from_corner(0, 0) * (1 - fade_u) + from_corner(0, 1) * fade_u
    bottom = from_corner(1, 0) * (1 - fade_u) + from_corner(1, 1) * fade_u
    noise: NDArray[np.float64] = top * (1 - fade_v) + bottom * fade_v
    return noise


def _window(rng: np.random.Generator, form: Mask, height: int, width: int) -> tuple[slice, slice, slice]:
    """Where in a (3, height, width) image a window of the form's size lies: anywhere inside."""
    rows, columns = form.shape
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    return slice(None), slice(top, top + rows), slice(left, left + columns)


def _jittered(filling: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The filling mirrored or not, with other contrast and brightness, in [0, 255]."""
    filling = filling[:, :: int(rng.choice((-1, 1))), :: int(rng.choice((-1, 1)))]
    mean = filling.mean(axis=(1, 2), keepdims=True)
    shift = rng.uniform(*SHIFT) * rng.choice((-1, 1))
    if not 0 <= mean.mean() + shift <= 255:  # white cannot get lighter, nor black darker
        shift = -shift
    jittered: NDArray[np.float32] = (filling - mean) * (1 + rng.uniform(-CONTRAST, CONTRAST)) + mean + shift
    return jittered.clip(0, 255).astype(np.float32)


def _trimmed(form: Mask) -> Mask:
    """The form without empty margins, so that it can lie at the very edge of an image too."""
    rows, columns = np.flatnonzero(form.any(axis=1)), np.flatnonzero(form.any(axis=0))
    return form[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
