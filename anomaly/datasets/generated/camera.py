"""The camera: one photograph of a piece of material, and the same photograph of it without the defect."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anomaly.datasets.generated.defects import DEFECTS
from anomaly.datasets.generated.noise import Array, Mask, coordinates, field
from anomaly.datasets.generated.surfaces import SURFACES
from anomaly.samples import GOOD

Pixels = NDArray[np.uint8]

# A change smaller than this, before the sensor's noise, counts as unseen.
_VISIBLE = 2.0 / 255


@dataclass(frozen=True)
class Photograph:
    """An image, the same scene without its defect under the same noise, both (size, size, 3), and the defect's mask."""

    image: Pixels
    clean: Pixels
    mask: Mask


def photograph(surface: str, kind: str, split: str, index: int, *, seed: int, size: int) -> Photograph:
    """Takes the picture that (seed, surface, split, kind, index) name; no other argument or call changes it."""
    # Names enter as checksums: Python's own hash of a string differs from run to run.
    key = [seed, crc32(surface.encode()), crc32(f"{split}/{kind}".encode()), index]
    material, damage, optics, sensor = (np.random.default_rng(s) for s in np.random.SeedSequence(key).spawn(4))
    canvas = SURFACES[surface].draw(material, size)
    light, focus = _light(optics, size), optics.uniform(0.35, 0.85) * size / 256

    def expose(scene: Array) -> Array:
        sharp = ndimage.gaussian_filter(scene, (focus, focus, 0), truncate=3.0)
        exposed: Array = sharp * light
        return exposed

    clean = expose(canvas.image)
    # Shot noise grows with the root of the light, read noise does not.
    gain = sensor.uniform(0.006, 0.016)
    grain: Array = sensor.standard_normal(clean.shape, dtype=np.float32)
    grain *= gain * (0.5 + np.sqrt(np.clip(clean, 0, 1)))
    if kind == GOOD:
        pixels = _develop(clean + grain)
        return Photograph(pixels, pixels, np.zeros((size, size), dtype=bool))
    damaged, touched = DEFECTS[kind](canvas, damage, SURFACES[surface].defects[kind])
    image = expose(damaged)
    changed = np.abs(image - clean).max(axis=-1) > _VISIBLE
    mask = changed | (touched & ndimage.binary_dilation(changed))
    return Photograph(_develop(image + grain), _develop(clean + grain), mask)


def _light(rng: np.random.Generator, size: int) -> Array:
    """Draws the light on each pixel, (size, size, 3) around 1: exposure, white balance, gradient and vignette."""
    x, y = coordinates(size)
    x, y = (x / 128 - 1).astype(np.float32), (y / 128 - 1).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0.0, 0.10) * (np.cos(angle) * x + np.sin(angle) * y)
    vignette = rng.uniform(0.0, 0.06) * (x**2 + y**2)
    even = rng.uniform(0.92, 1.08) + slope - vignette + 0.015 * field(rng, size, 120)
    balance = 1 + rng.normal(0, 0.007, 3)
    light: Array = (even[..., None] * balance).astype(np.float32)
    return light


def _develop(light: Array) -> Pixels:
    return np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)
