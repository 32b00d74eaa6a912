"""Norms of the filters that make a channel, over layers that are tied to one another."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.graph import ChannelGroup, Member


def filter_norms(group: ChannelGroup, power: int) -> Tensor:
    """Mean over the group's layers of s_j = sum |F_ij| ** power, each layer's mean set to 1.

    Layers tied by a residual sum differ in filter size; without the division the largest would decide alone.

    Returns:
        (group.size,) at least 0.
    """
    score = torch.zeros(group.size)
    layers = 0
    for member, filters in group.filters():
        norms = filters.detach().abs().pow(power).sum(dim=1)
        norms = norms / norms[member.indices].mean().clamp_min(torch.finfo(norms.dtype).tiny)
        score += per_channel(group, member, norms).cpu()
        layers += 1
    return score / max(layers, 1)


def per_channel(group: ChannelGroup, member: Member, values: Tensor) -> Tensor:
    """`values`, one for each channel of the layer, summed up by the channel of the group that they fall with.

    Where a layer is flattened into vectors, several of its inputs fall with one channel.

    Returns:
        (group.size,) on the device of `values`, with its gradients.
    """
    indices, channels = member.indices.to(values.device), member.channels.to(values.device)
    return values.new_zeros(group.size).index_add(0, channels, values[indices])
