"""The defects: each function damages a piece of material and says which pixels it touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anomaly.datasets.generated.noise import FRAME, Array, Mask, coordinates, field, fractal, mix, smoothstep
from anomaly.datasets.generated.surfaces import Canvas

Points = NDArray[np.float64]

# A defect takes the material, a generator and its strength there (1 is usual); it gives the damaged image and the
# pixels that belong to it: those where its opacity or its displacement can be seen. A human labels the same.
Defect = Callable[[Canvas, np.random.Generator, float], tuple[Array, Mask]]

# The protocol crops the central 224 of 256: centres keep away from the border by this much and more.
_MARGIN = 64.0


def _spot(rng: np.random.Generator, margin: float = _MARGIN) -> tuple[float, float]:
    x, y = rng.uniform(margin, FRAME - margin, 2)
    return float(x), float(y)


def _polar(size: int, centre: tuple[float, float]) -> tuple[Array, Array]:
    x, y = coordinates(size)
    dx, dy = x - centre[0], y - centre[1]
    return np.hypot(dx, dy).astype(np.float32), np.arctan2(dy, dx).astype(np.float32)


def _curve(
    rng: np.random.Generator, centre: tuple[float, float], length: float, bend: float, steps: int = 28
) -> Points:
    """Walks `length` frame units with a heading that drifts by about `bend` radians; gives (steps, 2) points."""
    drift = np.linspace(-1, 1, steps) * rng.normal(0, bend) + np.cumsum(rng.normal(0, bend / steps, steps))
    heading = rng.uniform(0, 2 * np.pi) + drift
    walk = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0) * (length / steps)
    points: Points = np.clip(walk - walk.mean(axis=0) + np.array(centre), 20, FRAME - 20)
    return points


def _along(size: int, points: Points) -> tuple[Array, Array]:
    """Gives each pixel's distance to the polyline and the place along it, 0 to 1, of the nearest point."""
    x, y = coordinates(size)
    nearest = np.full((size, size), np.inf, dtype=np.float32)
    place = np.zeros((size, size), dtype=np.float32)
    low = np.maximum(((points.min(axis=0) - 8) * size / FRAME).astype(int), 0)
    high = ((points.max(axis=0) + 8) * size / FRAME).astype(int) + 1
    box = (slice(low[1], high[1]), slice(low[0], high[0]))
    x, y = x[box], y[box]
    steps = len(points) - 1
    for index, (start, end) in enumerate(pairwise(points)):
        direction = (end - start).astype(np.float32)
        extent = np.float32(max(float(direction @ direction), 1e-6))
        t = np.clip(((x - start[0]) * direction[0] + (y - start[1]) * direction[1]) / extent, 0, 1)
        distance = np.hypot(x - start[0] - t * direction[0], y - start[1] - t * direction[1]).astype(np.float32)
        closer = distance < nearest[box]
        nearest[box] = np.where(closer, distance, nearest[box])
        place[box] = np.where(closer, (index + t) / steps, place[box])
    return nearest, place


def scratch(canvas: Canvas, rng: np.random.Generator, strength: float) -> tuple[Array, Mask]:
    """Drags a point over the surface: a thin groove with one lit and one shaded edge, pressed unevenly."""
    size = len(canvas.image)
    points = _curve(rng, _spot(rng, 80), rng.uniform(40, 110), 0.25)
    distance, place = _along(size, points)
    angle = rng.uniform(0, 2 * np.pi)
    lit_distance, _ = _along(size, points + 1.3 * np.array([np.cos(angle), np.sin(angle)]))
    waves = 0.75 + 0.25 * np.sin(place * rng.uniform(8, 25) + rng.uniform(0, 6))
    pressure = np.clip(np.sin(np.pi * np.clip(place, 0, 1)), 0, 1) ** 0.5 * waves
    width = rng.uniform(0.6, 1.2)
    groove = np.clip(width + 0.5 - distance, 0, 1) * pressure
    ridge = np.clip(width + 0.3 - lit_distance, 0, 1) * pressure * (1 - groove)
    power = strength * rng.uniform(0.25, 0.6)
    image = canvas.image * (1 - power * groove)[..., None]
    image = image + (0.45 * power * ridge)[..., None]
    return np.clip(image, 0, 1).astype(np.float32), np.maximum(groove, ridge) > 0.25


def hole(canvas: Canvas, rng: np.random.Generator, strength: float) -> tuple[Array, Mask]:
    """Opens a small ragged hole: dark inside, its far wall catching light, a thin rim around it."""
    size = len(canvas.image)
    distance, angle = _polar(size, _spot(rng, 40))
    radius = rng.uniform(2.4, 5.5) * strength
    outline = sum(
        rng.normal(0, 0.16 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in range(2, 6)
    )
    edge = (distance - radius * (1 + outline) + 0.3 * field(rng, size, 2.5)).astype(np.float32)
    inside = smoothstep(0.8, -0.8, edge)
    light = rng.uniform(0, 2 * np.pi)
    wall = np.clip(np.cos(angle - light), 0, 1) * smoothstep(-3.0, 0.0, edge)
    colour = canvas.image.mean(axis=(0, 1)) * rng.uniform(0.15, 0.6)
    depth = colour * (1 + 1.2 * wall[..., None])
    rim = smoothstep(2.2, 0.6, edge) * (1 - inside) * rng.uniform(0.05, 0.16)
    image = canvas.image + (rim * np.cos(angle - light))[..., None]
    return np.clip(mix(image, depth, inside), 0, 1).astype(np.float32), inside > 0.2


_LIQUIDS = np.array([[0.62, 0.45, 0.28], [0.55, 0.55, 0.55], [0.45, 0.55, 0.70], [0.70, 0.62, 0.40]], dtype=np.float32)


def stain(canvas: Canvas, rng: np.random.Generator, strength: float) -> tuple[Array, Mask]:
    """Soaks in a drop of liquid: a ragged transparent patch, darker along its dried edge."""
    size = len(canvas.image)
    distance, _ = _polar(size, _spot(rng))
    radius = rng.uniform(9, 24)
    level = (1 - distance / radius + 0.22 * fractal(rng, size, radius, 3)).astype(np.float32)
    body = smoothstep(0, 0.12, level)
    dried_edge = body * smoothstep(0.30, 0.08, level)
    opacity = body * (0.65 + 0.1 * fractal(rng, size, 20, 3)) + 0.35 * dried_edge
    opacity = np.clip(opacity * strength * rng.uniform(0.24, 0.48), 0, 1)
    liquid = _LIQUIDS[rng.integers(len(_LIQUIDS))]
    image = canvas.image * (1 - opacity[..., None] * (1 - liquid))
    return np.clip(image, 0, 1).astype(np.float32), body > 0.3


def dent(canvas: Canvas, rng: np.random.Generator, strength: float) -> tuple[Array, Mask]:
    """Presses the surface in or out: its texture is pulled towards or away from a point, its slopes are shaded."""
    size = len(canvas.image)
    centre = _spot(rng)
    x, y = coordinates(size)
    turn, stretch, radius = rng.uniform(0, np.pi), rng.uniform(0.75, 1.0), rng.uniform(13, 28)
    dx, dy = x - centre[0], y - centre[1]
    long = (np.cos(turn) * dx + np.sin(turn) * dy) / radius
    short = (-np.sin(turn) * dx + np.cos(turn) * dy) / (radius * stretch)
    # Height (1 - r^2)^2 inside the unit disc, so that slope and displacement both end softly at its border.
    inside = np.clip(1 - long**2 - short**2, 0, None)
    slope_long, slope_short = -4 * long * inside, -4 * short * inside / stretch
    slope_x = np.cos(turn) * slope_long - np.sin(turn) * slope_short
    slope_y = np.sin(turn) * slope_long + np.cos(turn) * slope_short
    # In proportion to the radius: a steeper pull would fold the texture over itself.
    pull = rng.uniform(0.06, 0.13) * radius * strength * rng.choice([-1, 1]) * size / FRAME
    rows, columns = np.indices((size, size), dtype=np.float32)
    sources = np.stack([rows + pull * slope_y, columns + pull * slope_x])
    image = np.stack(
        [ndimage.map_coordinates(canvas.image[..., c], sources, order=1, mode="reflect") for c in range(3)], axis=-1
    )
    light = rng.uniform(0, 2 * np.pi)
    shade = rng.uniform(0.03, 0.08) * strength * (np.cos(light) * slope_x + np.sin(light) * slope_y)
    image = image * (1 + shade)[..., None]
    # At 0.12 of the full height the pull is still some tenths of a pixel.
    return np.clip(image, 0, 1).astype(np.float32), inside > 0.12


_DIRT = np.array([[0.12, 0.11, 0.10], [0.85, 0.84, 0.80], [0.45, 0.20, 0.15], [0.20, 0.25, 0.40]], dtype=np.float32)


def contamination(canvas: Canvas, rng: np.random.Generator, strength: float) -> tuple[Array, Mask]:
    """Drops foreign matter on the surface: a curled fibre with its shadow, or a cluster of specks."""
    size = len(canvas.image)
    if rng.random() < 0.5:
        points = _curve(rng, _spot(rng), rng.uniform(22, 60), 1.6)
        distance, _ = _along(size, points)
        shadow_distance, _ = _along(size, points + 1.5)
        width = rng.uniform(0.5, 1.0)
        cover = np.clip(width + 0.5 - distance, 0, 1)
        shadow = np.clip(width + 1.0 - shadow_distance, 0, 1) * (1 - cover)
    else:
        cover = np.zeros((size, size), dtype=np.float32)
        middle = np.array(_spot(rng))
        for _ in range(rng.integers(3, 10)):
            distance, angle = _polar(size, tuple(middle + rng.normal(0, 9, 2)))
            radius = rng.uniform(0.9, 2.4) * (1 + 0.25 * np.cos(2 * angle + rng.uniform(0, 6)))
            cover = np.maximum(cover, np.clip(radius + 0.5 - distance, 0, 1))
        shadow = np.roll(cover, (1, 1), axis=(0, 1)) * (1 - cover)
    power = min(strength * rng.uniform(0.4, 0.8), 0.95)
    matter = np.broadcast_to(_DIRT[rng.integers(len(_DIRT))], canvas.image.shape)
    image = mix(canvas.image * (1 - 0.25 * power * shadow)[..., None], matter, (cover * power).astype(np.float32))
    return np.clip(image, 0, 1).astype(np.float32), cover > 0.25


def _bare(canvas: Canvas) -> Array:
    if canvas.bare is None:
        raise TypeError("this surface has no layer that could be missing")
    return canvas.bare


def missing_print(canvas: Canvas, rng: np.random.Generator, strength: float) -> tuple[Array, Mask]:
    """Leaves out or thins the ink in a ragged patch that holds some print."""
    bare = _bare(canvas)
    size = len(bare)
    ink = np.abs(canvas.image - bare).max(axis=-1)
    # Of a dozen candidate places the one whose neighbourhood holds the most ink.
    near = ndimage.uniform_filter(ink, size=max(3, size // 24))
    spots = [_spot(rng) for _ in range(12)]
    centre = max(spots, key=lambda spot: near[int(spot[1] * size / FRAME), int(spot[0] * size / FRAME)])
    distance, _ = _polar(size, centre)
    radius = rng.uniform(8, 16) * strength
    level = (1 - distance / radius + 0.30 * fractal(rng, size, 12, 3)).astype(np.float32)
    lost = smoothstep(0, 0.25, level) * rng.uniform(0.7, 1.0)
    return mix(canvas.image, bare, lost), (lost * ink) > 0.03


def missing_thread(canvas: Canvas, rng: np.random.Generator, strength: float) -> tuple[Array, Mask]:
    """Pulls one warp thread out over part of its length, so that the weft shows."""
    bare = _bare(canvas)
    if canvas.thread is None:
        raise TypeError("this surface has no threads")
    size = len(bare)
    x, y = _spot(rng)
    half = rng.uniform(14, 42) * strength
    here = np.floor(canvas.thread[int(y * size / FRAME), int(x * size / FRAME)])
    rows = coordinates(size)[1]
    across = canvas.thread - here
    cover = smoothstep(0.5, 0.42, np.abs(across - 0.5)) * smoothstep(half + 1.5, half - 1.5, np.abs(rows - y))
    change = np.abs(canvas.image - bare).max(axis=-1)
    return mix(canvas.image, bare, cover), (cover * change) > 0.03


DEFECTS: Mapping[str, Defect] = {
    "scratch": scratch,
    "hole": hole,
    "stain": stain,
    "dent": dent,
    "contamination": contamination,
    "missing_print": missing_print,
    "missing_thread": missing_thread,
}
