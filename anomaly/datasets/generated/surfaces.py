"""The surfaces: each function draws one fresh piece of material, flatly lit and in focus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from anomaly.datasets.generated.noise import Array, coordinates, field, fractal, frame, mix, smoothstep


@dataclass(frozen=True)
class Canvas:
    """A piece of material: `image`, (size, size, 3) in [0, 1], and what is known about how it is built.

    `bare` is the same piece without its print, or without its warp threads; `thread` gives, per pixel, the
    position across the warp threads in threads (the integer part names the thread).
    """

    image: Array
    bare: Array | None = None
    thread: Array | None = None


@dataclass(frozen=True)
class Surface:
    """A kind of material: how to draw it, and the defects it can have, each with its strength on this material."""

    draw: Callable[[np.random.Generator, int], Canvas]
    defects: Mapping[str, float]


def _colour(rng: np.random.Generator, red: float, green: float, blue: float, spread: float = 0.025) -> Array:
    """Gives a colour near the named one: lightness and each channel vary by about `spread`."""
    base = np.array([red, green, blue], dtype=np.float32)
    jitter = rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    return np.clip(base * (1 + jitter), 0, 1).astype(np.float32)


def woven(rng: np.random.Generator, size: int) -> Canvas:
    """Draws a 2/2 twill of blue warp and pale weft threads."""
    pitch = 6.5
    x, y = frame(rng, size, degrees=1.5, zoom=0.03)
    # Threads wander: each one slowly along itself, neighbours nearly independently.
    u = (x + 0.3 * field(rng, size, 10, 110) + 0.9 * field(rng, size, 120)) / pitch
    v = (y + 0.3 * field(rng, size, 110, 10) + 0.9 * field(rng, size, 120)) / pitch
    column, row = np.floor(u), np.floor(v)
    across_warp, across_weft = u - column, v - row
    turn = np.mod(column + row, 4)
    warp_on_top = turn < 2

    def yarn(across: Array, along: Array, thickness: Array) -> Array:
        # A round yarn, lit from above, dives under its neighbours at both ends of each float.
        off_axis, off_middle = np.abs(2 * across - 1), np.square(2 * along - 1)
        round_ = 1 - 0.9 * off_axis * off_axis * off_axis / thickness
        light = np.sqrt(np.clip(round_, 0, 1)) * (1 - 0.45 * off_middle * off_middle)
        return light.astype(np.float32)

    thickness = 1 + 0.05 * field(rng, size, 9, 70)
    warp_float = (turn + across_weft) / 2
    weft_float = (np.mod(turn - 2, 4) + across_warp) / 2
    twist = np.sin(2 * np.pi * (1.1 * u + 2.3 * v) + field(rng, size, 5))
    fibres = field(rng, size, 1.6)
    warp_light = yarn(across_warp, warp_float, thickness) * (1 + 0.07 * twist + 0.07 * fibres)
    weft_light = yarn(across_weft, weft_float, thickness) * (1 - 0.06 * twist + 0.06 * fibres)
    # With the warp thread gone the weft lies straight and deeper.
    loose_light = yarn(across_weft, np.full_like(u, 0.5), thickness) * (0.88 + 0.05 * fibres)

    warp_colour, weft_colour = _colour(rng, 0.34, 0.44, 0.60), _colour(rng, 0.68, 0.70, 0.71)
    dye = 1 + 0.03 * field(rng, size, 8, 260) + 0.02 * fractal(rng, size, 90, 3)
    slub = 1 + 0.03 * field(rng, size, 240, 8)
    warp = (warp_light * dye)[..., None] * warp_colour
    weft = (weft_light * slub)[..., None] * weft_colour
    bare = (loose_light * slub)[..., None] * weft_colour
    gap = 0.06 * warp_colour
    image = np.where(warp_on_top[..., None], warp, weft) * 0.94 + gap
    return Canvas(
        np.clip(image, 0, 1).astype(np.float32), np.clip(bare + gap, 0, 1).astype(np.float32), u.astype(np.float32)
    )


def wood(rng: np.random.Generator, size: int) -> Canvas:
    """Draws a plain-sawn board: growth rings cut at a slant, fibres and pores along the grain."""
    tilt = rng.uniform(-3.0, 3.0)
    x, y = coordinates(size)
    turn = np.deg2rad(tilt)
    across = np.cos(turn) * (x - 128) - np.sin(turn) * (y - 128)
    along = np.sin(turn) * (x - 128) + np.cos(turn) * (y - 128)
    # The heart lies beside the board or under it, so that rings run straight or close into a cathedral.
    heart, top = rng.uniform(60, 330) * rng.choice([-1, 1]), rng.uniform(-500, 500)
    slope = rng.uniform(0.02, 0.10)
    distance = np.sqrt((across - heart) ** 2 + (slope * (along - top)) ** 2 + 30.0**2)
    distance = distance + 5.0 * field(rng, size, 70, 300, tilt) + 1.1 * field(rng, size, 14, 110, tilt)
    spacing = rng.uniform(13.0, 19.0)
    phase = distance / spacing + 0.45 * np.sin(distance / 41 + rng.uniform(0, 6))
    ring = phase - np.floor(phase)
    # Latewood darkens slowly through the year and ends sharply.
    late = ring**2.2 * smoothstep(0, 0.10, (1 - ring).astype(np.float32))
    late = late * (0.75 + 0.25 * field(rng, size, 16, 200, tilt))

    early_colour, late_colour = _colour(rng, 0.78, 0.61, 0.43), _colour(rng, 0.58, 0.40, 0.25)
    shape = (size, size, 3)
    image = mix(np.broadcast_to(early_colour, shape), np.broadcast_to(late_colour, shape), np.clip(late, 0, 1))
    fibres = 0.035 * field(rng, size, 1.5, 45, tilt) + 0.025 * field(rng, size, 3.5, 120, tilt)
    flecks = 0.03 * smoothstep(1.2, 2.0, field(rng, size, 5, 14, tilt))
    pores = smoothstep(1.4, 2.2, field(rng, size, 1.1, 10, tilt)) * (0.35 + 0.65 * (1 - late))
    tone = 1 + fibres + flecks + 0.035 * fractal(rng, size, 130, 3)
    image = image * tone[..., None] * (1 - 0.30 * pores[..., None] * np.array([0.85, 1, 1.1], dtype=np.float32))
    return Canvas(np.clip(image, 0, 1).astype(np.float32))


def metal(rng: np.random.Generator, size: int) -> Canvas:
    """Draws brushed steel: fine grooves along one direction and the soft band they spread a lamp into."""
    tilt = rng.uniform(-4.0, 4.0)
    grooves = (
        0.60 * field(rng, size, 130, 1.3, tilt)
        + 0.45 * field(rng, size, 50, 1.5, tilt + rng.normal(0, 0.6))
        + 0.45 * field(rng, size, 260, 3.5, tilt)
        + 0.35 * field(rng, size, 300, 14, tilt)
        + 0.25 * field(rng, size, 14, 1.2, tilt)
    )
    hairs = smoothstep(1.9, 2.8, field(rng, size, 70, 1.3, tilt + rng.normal(0, 1.5)))
    x, y = coordinates(size)
    lamp = rng.uniform(20, 236) + rng.uniform(-0.35, 0.35) * (y - 128)
    width = rng.uniform(55, 110)
    glow = np.exp(-(((x - lamp) / width) ** 2)).astype(np.float32)
    depth = rng.uniform(0.045, 0.065)
    light = 0.50 + 0.17 * glow + (depth * (0.7 + 0.6 * glow)) * grooves + 0.09 * hairs
    light = light + 0.02 * fractal(rng, size, 150, 2)
    cool, warm = _colour(rng, 0.97, 1.0, 1.03, 0.012), _colour(rng, 1.04, 1.0, 0.95, 0.012)
    tint = mix(
        np.broadcast_to(cool, (size, size, 3)),
        np.broadcast_to(warm, (size, size, 3)),
        smoothstep(-1.5, 1.5, field(rng, size, 160)) * 0.8,
    )
    return Canvas(np.clip(light[..., None] * tint, 0, 1).astype(np.float32))


def printed(rng: np.random.Generator, size: int) -> Canvas:
    """Draws card printed with two inks: a teal grid, and a ring or a star in each of its cells."""
    cell = 32.0
    x, y = frame(rng, size, degrees=1.0, zoom=0.01, shift=4.0)
    x = x + 0.3 * field(rng, size, 80)
    y = y + 0.3 * field(rng, size, 80)
    rough = 0.12 * field(rng, size, 2.2)

    def cells(left: float, top: float) -> tuple[Array, Array, Array]:
        u, v = (x - left) / cell, (y - top) / cell
        return (u - np.floor(u) - 0.5) * cell, (v - np.floor(v) - 0.5) * cell, np.floor(u) + np.floor(v)

    def ink(distance: Array, gain: float) -> Array:
        return smoothstep(-0.7, 0.7, (gain + rough - distance).astype(np.float32))

    # The second ink is never in perfect register with the first.
    u, v, _ = cells(0, 0)
    s, t, parity = cells(*rng.uniform(-0.6, 0.6, 2))
    gain, second_gain = rng.uniform(-0.1, 0.15, 2)
    lines = ink((cell / 2 - np.maximum(np.abs(u), np.abs(v)) - 1.0).astype(np.float32), gain)
    radius = np.hypot(s, t)
    ring = np.minimum(np.abs(radius - 7.6) - 1.2, radius - 2.4)
    # A four-pointed star: the astroid |s|^(2/3) + |t|^(2/3) = a^(2/3), its left side brought back to a length.
    astroid = np.cbrt(s * s) + np.cbrt(t * t)
    star = astroid * np.sqrt(astroid) - 10.5
    star = np.maximum(star * 0.6, 1.6 - radius)
    motif = ink(np.where(np.mod(parity, 2) < 1, ring, star).astype(np.float32), second_gain)

    paper = (
        _colour(rng, 0.85, 0.82, 0.765, 0.015)
        * (
            1 + 0.012 * fractal(rng, size, 90, 3) + 0.016 * field(rng, size, 2.2) + 0.012 * field(rng, size, 9, 2)
        ).astype(np.float32)[..., None]
    )
    mottle = 1 + 0.03 * fractal(rng, size, 40, 4)
    density = rng.uniform(0.84, 0.94)
    teal, red = _colour(rng, 0.20, 0.47, 0.52), _colour(rng, 0.74, 0.30, 0.22)
    image = paper * (1 - (lines * mottle * density)[..., None] * (1 - teal))
    image = image * (1 - (motif * mottle * density)[..., None] * (1 - red))
    return Canvas(np.clip(image, 0, 1).astype(np.float32), bare=np.clip(paper, 0, 1).astype(np.float32))


SURFACES: Mapping[str, Surface] = {
    "woven_fabric": Surface(
        woven,
        {"scratch": 1.9, "hole": 1.6, "stain": 2.6, "dent": 0.9, "contamination": 1.6, "missing_thread": 1.3},
    ),
    "wood_grain": Surface(wood, {"scratch": 1.0, "hole": 0.9, "stain": 1.3, "dent": 1.3, "contamination": 0.9}),
    "brushed_metal": Surface(metal, {"scratch": 0.9, "hole": 0.7, "stain": 0.55, "dent": 1.0, "contamination": 0.9}),
    "printed_grid": Surface(
        printed,
        {"scratch": 1.8, "hole": 1.7, "stain": 2.6, "dent": 1.4, "contamination": 2.0, "missing_print": 1.2},
    ),
}
