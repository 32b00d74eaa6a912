"""Locally aware patch features (Roth et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def embed_patches(maps: Sequence[Tensor]) -> Tensor:
    """One vector per position of the shallowest map, made of all maps.

    Each map is averaged over 3x3 neighbourhoods (stride 1, padding 1), the deeper ones are resized
    bilinearly to the first, and all are concatenated along the channels.

    Args:
        maps: feature maps (N, C_i, H_i, W_i), shallow first.

    Returns:
        (N, H_1, W_1, sum C_i), contiguous.
    """
    pooled = [F.avg_pool2d(feature_map, kernel_size=3, stride=1, padding=1) for feature_map in maps]
    size = pooled[0].shape[-2:]
    aligned = [pooled[0]] + [
        F.interpolate(deeper, size=size, mode="bilinear", align_corners=False) for deeper in pooled[1:]
    ]
    return torch.cat(aligned, dim=1).permute(0, 2, 3, 1).contiguous()
