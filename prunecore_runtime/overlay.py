"""An anomaly map over its image, as a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Matplotlib's inferno from 0.3 on (its dark end would look like shadow), nine stops in even steps.
_STOPS = np.array(
    [
        [101, 21, 110],
        [137, 34, 106],
        [172, 46, 93],
        [204, 62, 72],
        [230, 87, 46],
        [246, 121, 19],
        [252, 161, 8],
        [245, 207, 57],
        [252, 255, 164],
    ],
    dtype=np.float32,
)
STRENGTH = 0.85  # the share of colour at the hottest


def overlay(image: NDArray[np.uint8], values: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Colour over the image, none below half of the threshold, all of it at twice the threshold.

    The scale hangs on the threshold alone, so pictures of different images can be compared.

    Args:
        image: uint8 (H, W, 3).
        values: (H, W), on the scale of the threshold.
    """
    heat = np.clip((values / threshold - 0.5) / 1.5, 0, 1)
    places = heat * (len(_STOPS) - 1)
    stops = np.arange(len(_STOPS))
    colour = np.stack([np.interp(places, stops, _STOPS[:, channel]) for channel in range(3)], axis=-1)
    alpha = STRENGTH * heat[..., None]
    blended: NDArray[np.uint8] = np.rint((1 - alpha) * image + alpha * colour).astype(np.uint8)
    return blended
