"""Taylor: a channel is worth what the loss would change if it went, to first order."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.graph import ChannelGroup
from compress.importance.evidence import Evidence
from compress.importance.filter_norms import per_channel


def taylor(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """(sum over the filter of w * g)^2 (Molchanov et al. 2019, eq. 7), summed over the group's layers.

    The gradients g are those of `compress.importance.gradients`.

    Returns:
        (group.size,) scores, at least 0.
    """
    score = torch.zeros(group.size, dtype=torch.float64)
    for member, _ in group.filters():
        score += per_channel(group, member, evidence.taylor[member.name])
    return score
