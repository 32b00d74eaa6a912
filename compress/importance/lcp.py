"""LCP: a channel is worth how strongly, how variedly and how often it speaks. No gradients, no labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.channel_statistics import ChannelStatistics
from compress.graph import ChannelGroup, MapMember, Member
from compress.importance.evidence import Evidence
from compress.importance.filter_norms import filter_norms

L1, VARIANCE, SPARSITY = 1.0, 1.0, -1.0
"""Weights of the three standardised statistics.

Equal in size: each already has unit spread in its group, and a set of weights fitted without labels would be fitted
to nothing. Loud and varied channels carry information; a channel that is silent nearly everywhere carries little.
"""


def lcp(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """L1 + variance - sparsity of a channel's activations, each standardised within the group.

    After Localization-aware Channel Pruning (Xie et al. 2020), whose gradients of a localization loss are replaced by
    statistics of forward passes: no class is known and none is needed. The activations are read where the next layers
    read them, and in the tapped maps; of several such places the mean is taken. A group that is read nowhere (its next
    layer lies past the last tap, and no stage shows its channels) is ranked by the L1 norm of its filters.

    Returns:
        (group.size,) scores of any sign, 0 on average.
    """
    seen = evidence.activations
    places: list[tuple[Member | MapMember, ChannelStatistics]] = [
        (member, seen[member.name]) for member in consumers(group) if member.name in seen
    ]
    places += [(member, seen[member.stage]) for member in group.maps if member.stage in seen]
    if not places:
        return filter_norms(group, power=1) - 1
    total = torch.zeros(group.size, dtype=torch.float64)
    entries = torch.zeros(group.size, dtype=torch.float64)
    for place, statistics in places:
        total.index_add_(0, place.channels, _combined(statistics, place.indices))
        entries.index_add_(0, place.channels, torch.ones(len(place.channels), dtype=torch.float64))
    return total / entries.clamp_min(1)


def consumers(group: ChannelGroup) -> list[Member]:
    """The layers that read the group's channels."""
    return [own for own in group.members if not own.outputs and isinstance(own.layer, nn.Conv2d | nn.Linear)]


def _combined(statistics: ChannelStatistics, indices: Tensor) -> Tensor:
    return (
        L1 * _standardised(statistics.l1[indices])
        + VARIANCE * _standardised(statistics.variance[indices])
        + SPARSITY * _standardised(statistics.sparsity[indices])
    )


def _standardised(values: Tensor) -> Tensor:
    centred = values - values.mean()
    spread = centred.square().mean().sqrt()
    # Equal values differ by rounding, which is not to be blown up.
    return centred / spread if spread > 1e-9 * values.abs().max() else torch.zeros_like(centred)
