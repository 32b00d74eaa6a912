"""Views of photographs: the random crops that a network is trained on, and the centre that a detector sees."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor
from torch.nn import functional as F

ASPECT = (3 / 4, 4 / 3)  # width over height of a crop
GREY = 0.4  # share of the crops without colour
LIGHT = 0.8  # share of the crops in another light
CONTRAST = (0.3, 1.5)  # factor around the crop's mean
BRIGHTNESS = 50  # largest shift, of 255
BLUR = 0.4  # share of the crops out of focus
COARSER = (1.5, 4.0)  # how many times fewer pixels a blurred crop has a side


def random_crop(image: Tensor, size: int, area: tuple[float, float], rng: np.random.Generator) -> Tensor:
    """A random part of `image`, stretched to a square and mirrored half of the time (Szegedy 2015, section 6).

    Args:
        image: uint8 (3, H, W).
        size: side of the square, in pixels.
        area: least and largest share of the image's area that the part covers.

    Returns:
        uint8 (3, size, size), resized bilinearly with antialiasing.
    """
    top, left, height, width = _box(image.shape[1], image.shape[2], area, rng)
    crop = _resized(image[:, top : top + height, left : left + width], size)
    return crop.flip(-1) if rng.random() < 0.5 else crop


def industrial(crop: Tensor, rng: np.random.Generator) -> Tensor:
    """A photograph's crop made more like what cameras above a line see: often grey, flat, dark or out of focus.

    Photographs are colourful and sharp, and a slim network that has learnt from nothing else is a poorer copy of its
    parent on bare surfaces.

    Args:
        crop: uint8 (3, S, S).

    Returns:
        uint8 (3, S, S).
    """
    pixels = crop.float()
    if rng.random() < GREY:
        pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
    if rng.random() < LIGHT:
        mean = pixels.mean()
        pixels = (pixels - mean) * rng.uniform(*CONTRAST) + mean + rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    if rng.random() < BLUR:
        size = crop.shape[-1]
        coarse = F.interpolate(
            pixels[None], (round(size / rng.uniform(*COARSER)),) * 2, mode="bilinear", antialias=True
        )
        pixels = F.interpolate(coarse, (size, size), mode="bilinear")[0]
    return pixels.round().clamp(0, 255).to(crop.dtype)


def centre_view(image: Tensor, size: int = 224) -> Tensor:
    """What the detector sees of `image`, uint8 (3, H, W): squashed to 256 x 256, its centre of 224 x 224.

    For a network of other images, the same in proportion: the centre of `size` x `size`.
    """
    squashed = round(size * 256 / 224)
    margin = (squashed - size) // 2
    return _resized(image, squashed)[:, margin : margin + size, margin : margin + size]


def _box(height: int, width: int, area: tuple[float, float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part."""
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        h, w = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        if 0 < h <= height and 0 < w <= width:
            break
    else:  # a very long image
        h = w = min(height, width)
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def _resized(image: Tensor, size: int) -> Tensor:
    return F.interpolate(image[None], (size, size), mode="bilinear", antialias=True)[0]
