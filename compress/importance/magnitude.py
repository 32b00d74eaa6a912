"""Magnitude: a channel is worth the L1 norm of the filters that make it."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.channel_groups import ChannelGroup
from compress.importance.evidence import Evidence


def magnitude(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """Mean over the group's layers of s_j = sum |F_ij| (Li et al. 2017, section 3.1), each layer's mean set to 1.

    Layers tied by a residual sum differ in filter size; without the division the largest would decide alone.

    Returns:
        (group.size,) scores, at least 0.
    """
    score = torch.zeros(group.size)
    layers = 0
    for member, filters in group.filters():
        norms = filters.detach().abs().sum(dim=1)[member.indices]
        score.index_add_(0, member.channels, norms / norms.mean().clamp_min(torch.finfo(norms.dtype).tiny))
        layers += 1
    return score / max(layers, 1)
