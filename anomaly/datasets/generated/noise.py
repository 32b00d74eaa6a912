"""Random fields and the camera's frame: what every surface is drawn from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Lengths below are in units of 1/256 of the image's side, so that a dataset of another size shows the same scene.
FRAME = 256.0


def coordinates(size: int) -> tuple[Array, Array]:
    """Gives x and y of every pixel centre, (size, size) each, in frame units from 0 to 256."""
    axis = ((np.arange(size) + 0.5) * (FRAME / size)).astype(np.float32)
    return np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))


def frame(
    rng: np.random.Generator, size: int, *, degrees: float, zoom: float, shift: float = 400.0
) -> tuple[Array, Array]:
    """Gives the surface coordinates under each pixel for a randomly shifted, turned and scaled camera.

    Rotation is uniform within `degrees`, scale within 1 +- `zoom`, shift within `shift` frame units.
    """
    x, y = coordinates(size)
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    scale = 1 + rng.uniform(-zoom, zoom)
    left, top = rng.uniform(0, shift, 2)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    x, y = x - FRAME / 2, y - FRAME / 2
    return (cos * x - sin * y + left).astype(np.float32), (sin * x + cos * y + top).astype(np.float32)


def field(
    rng: np.random.Generator, size: int, along_x: float, along_y: float | None = None, tilt: float = 0.0
) -> Array:
    """Draws smooth noise, (size, size), mean 0 and deviation about 1.2.

    It is correlated over `along_x` by `along_y` frame units and turned by `tilt` degrees.
    """
    along_y = along_x if along_y is None else along_y
    cos, sin = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    # The frame's corners, turned, must fall inside the grid; 4 more nodes feed the bicubic kernel and the random phase.
    reach = FRAME * (abs(cos) + abs(sin))
    columns, rows = int(reach / along_x) + 6, int(reach / along_y) + 6
    grid = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    phase_x, phase_y = rng.uniform(-0.5, 0.5, 2)
    middle_x, middle_y = columns / 2 + phase_x, rows / 2 + phase_y
    if tilt == 0:
        # The general way below gives nearly the same field (its kernel is a little sharper) at several times the cost.
        half_x, half_y = FRAME / 2 / along_x, FRAME / 2 / along_y
        box = (middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y)
        drawn = grid.resize((size, size), Image.Resampling.BICUBIC, box)
    else:
        step, centre = FRAME / size, FRAME / 2
        affine = (
            cos * step / along_x,
            -sin * step / along_x,
            middle_x - (cos - sin) * centre / along_x,
            sin * step / along_y,
            cos * step / along_y,
            middle_y - (sin + cos) * centre / along_y,
        )
        drawn = grid.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    # Between independent nodes an interpolated field is flatter than at them: 0.7 makes up for it, and a little more.
    return np.asarray(drawn, dtype=np.float32) / np.float32(0.7)


def fractal(rng: np.random.Generator, size: int, coarsest: float, octaves: int = 4, falloff: float = 0.55) -> Array:
    """Sums `octaves` fields, each half as coarse and `falloff` as strong as the last; deviation about 1.2."""
    total = np.zeros((size, size), dtype=np.float32)
    weights = falloff ** np.arange(octaves)
    for octave, weight in enumerate(weights):
        total += np.float32(weight) * field(rng, size, coarsest / 2**octave)
    return total / np.float32(np.sqrt((weights**2).sum()))


def smoothstep(low: float, high: float, value: Array) -> Array:
    """Ramps from 0 at `low` to 1 at `high` with flat ends."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    ramp: Array = t * t * (3 - 2 * t)
    return ramp


def mix(base: Array, other: Array, weight: Array) -> Array:
    """Blends two (size, size, 3) images by a (size, size) weight."""
    blend: Array = base + (other - base) * weight[..., None]
    return blend
