"""Group norm: a channel is worth all parameters that would go with it (DepGraph)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.graph import ChannelGroup, Member
from compress.importance.evidence import Evidence
from compress.importance.filter_norms import per_channel
from compress.importance.penalty import Penalty

STRENGTH = 1e-4  # of the penalty, as in the authors' Torch-Pruning
ALPHA = 4  # of the shrinkage, Fang et al. 2023, section 3.3


def group_norm(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """sqrt(I_k), I_k = sum over w of ||w[k]||^2 (Fang et al. 2023, eq. 4), its mean over the group set to 1.

    w runs over everything in the group: filters, scales of norms, and the slices of the next layers' filters that
    read channel k. The division makes groups of few and of many layers comparable in a global ranking.

    Returns:
        (group.size,) scores, at least 0.
    """
    norms = squared_norms(group).detach().sqrt().cpu()
    return norms / norms.mean().clamp_min(torch.finfo(norms.dtype).tiny)


def group_norm_penalty(groups: Sequence[ChannelGroup], removals: Sequence[Sequence[int]]) -> Penalty:
    """sum over groups and k of gamma_k * I_k / 2 (Fang et al. 2023, eq. 4), times a small strength.

    gamma_k = 2 ** (alpha * (I_max - I_k) / (I_max - I_min)) (eq. 5) is worked out anew at each step and is taken for
    a constant: weak channels shrink up to 16 times as fast as strong ones. Halving makes the gradient gamma_k * w[k],
    which is what the authors' code applies.
    """

    def penalty(progress: float) -> Tensor:
        return STRENGTH / 2 * torch.stack([_shrinkage(group) for group in groups]).sum()

    return penalty


def _shrinkage(group: ChannelGroup) -> Tensor:
    norms = squared_norms(group)
    now = norms.detach()
    spread = (now.max() - now.min()).clamp_min(torch.finfo(now.dtype).tiny)
    return (2 ** (ALPHA * (now.max() - now) / spread) * norms).sum()


def squared_norms(group: ChannelGroup) -> Tensor:
    """I_k of every channel, (group.size,), with gradients."""
    parts = [per_channel(group, member, norms) for member in group.members for norms in _norms(member)]
    return torch.stack(parts).sum(dim=0) if parts else torch.zeros(group.size)


def _norms(member: Member) -> list[Tensor]:
    """Squared norms by the layer's own output (or input) channels; none for a layer without weights."""
    layer = member.layer
    if isinstance(layer, nn.Conv2d | nn.Linear):
        blocks = layer.groups if isinstance(layer, nn.Conv2d) else 1
        # Input channel i of block b is read by the filters of that block alone.
        filters, inputs = layer.weight.shape[:2]
        squared = layer.weight.square().reshape(blocks, filters // blocks, inputs, -1).sum(dim=3)
        return [squared.sum(dim=2).flatten() if member.outputs else squared.sum(dim=1).flatten()]
    weight = getattr(layer, "weight", None)
    return [weight.square()] if isinstance(weight, Tensor) and weight.ndim == 1 else []
