"""Pictures of one example: its heat map over the image, and its true defect outlined."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

Picture = npt.NDArray[np.uint8]

COLOUR_MAP = "inferno"
DARKEST = 0.3  # where in the colour map a heat map begins: its black end would look like shadow
OUTLINE = (0, 229, 190)


def overlay(
    image: Picture, values: npt.NDArray[np.floating], *, low: float, high: float, strength: float = 0.85
) -> Picture:
    """The heat map blended over the image: the hotter a pixel, the more colour covers it.

    With t = (value - low) / (high - low) clipped to [0, 1], a pixel is (1 - strength t) image + strength t colour(t).
    A value that is not finite, or an empty range, leaves the image as it is.

    Args:
        image: uint8 (H, W, 3).
        values: float (H, W).
        strength: the share of colour at `high`, in [0, 1].
    """
    if not (np.isfinite(low) and np.isfinite(high) and high > low):
        return image.copy()
    heat = (values.astype(np.float64) - low) / (high - low)
    heat = np.clip(np.nan_to_num(heat, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    colour = _colours(heat) * 255.0
    alpha = strength * heat[..., None]
    return np.rint((1.0 - alpha) * image + alpha * colour).astype(np.uint8)


def outlined(image: Picture, mask: npt.NDArray[np.bool_], *, width: int = 2) -> Picture:
    """The image with a line of `width` pixels just outside the mask, so that even a one-pixel defect is seen."""
    edge = ndimage.binary_dilation(mask, iterations=width) & ~mask
    picture = image.copy()
    picture[edge] = OUTLINE
    return picture


def jpeg(picture: Picture, *, side: int, quality: int = 84) -> bytes:
    """The picture as JPEG, shrunk to at most `side` pixels; colour is kept at full resolution for thin lines."""
    shown = Image.fromarray(picture)
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    shown.save(out, "JPEG", quality=quality, subsampling=0, optimize=True)
    return out.getvalue()


def colour_bar() -> list[str]:
    """The heat map's colours from low to high as CSS colours."""
    stops = _colours(np.linspace(0.0, 1.0, 9))
    return ["#" + "".join(f"{round(255 * float(channel)):02x}" for channel in stop) for stop in stops]


def _colours(heat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """RGB in [0, 1], shape (..., 3), of heat in [0, 1]."""
    return np.asarray(colormaps[COLOUR_MAP](DARKEST + (1.0 - DARKEST) * heat))[..., :3]
