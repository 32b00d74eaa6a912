"""Batch norm: a channel is worth the scale that its batch norm gives it (network slimming)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.errors import CompressError
from compress.graph import ChannelGroup
from compress.importance.evidence import Evidence
from compress.importance.filter_norms import filter_norms, per_channel
from compress.importance.penalty import Penalty

STRENGTH = 1e-4  # lambda of Liu et al. 2017, section 4.3, for VGG


def batch_norm(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """|gamma|, averaged over the group's batch norms (Liu et al. 2017, section 3).

    The raw values are compared, as in the paper, so that a global ranking sees which layers were driven down.
    A group without a batch norm, such as the gate of a squeeze-excite block, is ranked by the L1 norm of its
    filters instead, with a mean of 1: about the gamma of a batch norm that nothing pressed down.

    Returns:
        (group.size,) scores, at least 0.
    """
    score = torch.zeros(group.size)
    seen = torch.zeros(group.size)
    for member, layer in group.norms():
        score += per_channel(group, member, layer.weight.detach().abs()).cpu()
        seen += per_channel(group, member, torch.ones_like(layer.weight)).cpu()
    return score / seen.clamp_min(1) if seen.any() else filter_norms(group, power=1)


def batch_norm_penalty(groups: Sequence[ChannelGroup], removals: Sequence[Sequence[int]]) -> Penalty:
    """lambda * sum |gamma| over all prunable channels (Liu et al. 2017, eq. 1), constant over the phase.

    Raises:
        CompressError: no group has a batch norm.
    """

    if not any(True for group in groups for _ in group.norms()):
        raise CompressError("no layer that can be pruned has a batch norm to press down: choose method growing_reg")

    def penalty(progress: float) -> Tensor:
        scales = [layer.weight[member.indices] for group in groups for member, layer in group.norms()]
        return STRENGTH * torch.stack([scale.abs().sum() for scale in scales]).sum()

    return penalty
