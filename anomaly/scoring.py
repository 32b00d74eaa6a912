"""From patch distances to an image score and a pixel map (Roth et al. 2022, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

SIGMA = 4.0  # pixels


def image_scores(distances: Tensor) -> Tensor:
    """The largest patch distance of each image: (N, H, W) to (N,)."""
    return distances.flatten(1).amax(dim=1)


def anomaly_maps(distances: Tensor, size: int) -> Tensor:
    """Patch distances (N, H, W) upsampled bilinearly to (N, size, size) and smoothed by a Gaussian of 4 pixels."""
    upsampled = F.interpolate(distances[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    return torch.from_numpy(gaussian_filter(upsampled.numpy(), sigma=SIGMA, axes=(1, 2)))
