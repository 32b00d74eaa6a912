"""Layer-adaptive magnitude (LAMP): magnitudes made comparable over layers."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.graph import ChannelGroup
from compress.importance.evidence import Evidence
from compress.importance.filter_norms import filter_norms


def layer_adaptive(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """score(u) = W[u]^2 / sum over v >= u of W[v]^2, channels in ascending order (Lee et al. 2021, eq. 3).

    W[u]^2 is the squared L2 norm of the channel's filters; tied layers as in `filter_norms`. The score is the share
    that a channel holds of what is left once all smaller ones are gone. It grows with W, so that within one group the
    order is that of magnitude: it says something new only where layers are ranked together, hence the global scope.
    The largest channel of every group scores 1. Equal channels count in the order of their indices.

    Returns:
        (group.size,) scores in [0, 1].
    """
    squared, order = filter_norms(group, power=2).double().sort(stable=True)
    left = squared.flip(0).cumsum(0).flip(0)
    share = squared / left.clamp_min(torch.finfo(left.dtype).tiny)
    return torch.zeros(group.size).index_copy(0, order, share.float())
