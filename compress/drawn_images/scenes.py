"""Random scenes: things of all sizes that hide each other."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.drawn_images.textures import texture

LEAVES = (10, 120)  # things in a scene
RADIUS = (7.0, 0.5)  # of the smallest in pixels, and of the largest as a share of the side
ASPECT = math.e  # length over width of a leaf, at most
ROUNDNESS = (1, 2, 2, 6)  # exponents of a superellipse: a diamond, an ellipse twice as often, a rounded rectangle
EDGE = (1.0, 2.0)  # pixels from full to nothing
MATERIALS = 3  # textures that the leaves of one scene are made of
BACK_TO_FRONT, GREY, MIRRORED = 0.5, 0.3, 0.5  # shares: of scenes with the large leaves behind, of leaves
CONTRAST, LEVEL = 1.2, (20.0, 235.0)  # factor on a material's own, at most; mean of a leaf, of 255
SHADING = 25.0  # standard deviation of the brightness from one edge of a leaf to its middle, of 255

_Pixels = NDArray[np.float32]


def scene(size: int, rng: np.random.Generator) -> Tensor:
    """Dead leaves (Lee 2001), uint8 RGB (3, size, size).

    Leaves of random shape, colour and texture fall on each other; their radii r follow r^-2, so that a scene has edges,
    corners and surfaces of all sizes, as photographs have. Networks learn from such images much of what they learn from
    photographs (Baradad 2021, arXiv 2106.05963).
    """
    materials = [texture(size, rng).numpy().astype(np.float32) for _ in range(MATERIALS)]
    canvas = _filled(size, size, materials, rng)
    for radius in _radii(size, rng):
        _drop_leaf(canvas, radius, materials, rng)
    return torch.from_numpy(canvas.clip(0, 255).astype(np.uint8))


def _radii(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Of the leaves in the order in which they fall, in pixels: density r^-2 between the limits."""
    least, most = RADIUS[0], RADIUS[1] * size
    drawn: NDArray[np.float64] = 1 / rng.uniform(1 / most, 1 / least, int(rng.integers(*LEAVES)))
    return np.sort(drawn)[::-1] if rng.random() < BACK_TO_FRONT else drawn


def _drop_leaf(canvas: _Pixels, radius: float, materials: list[_Pixels], rng: np.random.Generator) -> None:
    """Cover a part of `canvas` (3, S, S), in place: |u/a|^p + |v/b|^p < 1 in coordinates along the leaf."""
    size = canvas.shape[1]
    stretch = math.sqrt(ASPECT ** rng.uniform(-1, 1))
    a, b, angle, power = radius * stretch, radius / stretch, rng.uniform(0, math.pi), rng.choice(ROUNDNESS)
    cy, cx = rng.uniform(0, size, 2)
    reach = math.ceil(math.hypot(a, b))
    top, left = max(0, int(cy) - reach), max(0, int(cx) - reach)
    part = canvas[:, top : int(cy) + reach, left : int(cx) + reach]
    height, width = part.shape[1:]
    y, x = np.arange(height)[:, None] + top - cy, np.arange(width)[None] + left - cx
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    distance = (np.abs(u / a) ** power + np.abs(v / b) ** power) ** (1 / power)
    cover = np.clip((1 - distance) * min(a, b) / rng.uniform(*EDGE) + 0.5, 0, 1).astype(np.float32)
    part += cover * (_filled(height, width, materials, rng) - part)


def _filled(height: int, width: int, materials: list[_Pixels], rng: np.random.Generator) -> _Pixels:
    """A piece (3, height, width) of one of the materials, in a colour and a light of its own."""
    material = materials[rng.integers(len(materials))]
    side = material.shape[1]
    top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
    piece = material[:, top : top + height, left : left + width]
    if rng.random() < MIRRORED:
        piece = piece[:, :, ::-1]
    colour = rng.uniform(*LEVEL, (1 if rng.random() < GREY else 3, 1, 1))
    down, across = rng.normal(0, SHADING, 2)
    light = down * np.linspace(-1, 1, height)[:, None] + across * np.linspace(-1, 1, width)
    filled: _Pixels = ((piece - piece.mean((1, 2), keepdims=True)) * rng.uniform(0, CONTRAST) + colour + light).astype(
        np.float32
    )
    return filled
