"""Growing regularization: the channels that are to go are pressed down, harder and harder, before they go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.graph import ChannelGroup
from compress.importance.evidence import Evidence
from compress.importance.filter_norms import filter_norms
from compress.importance.penalty import Penalty

CEILING = 1.0  # tau of Wang et al. 2021: the factor at which the growth ends


def growing_reg(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """L2 norms of the filters: what the penalty presses down; tied layers as in `filter_norms`.

    Returns:
        (group.size,) scores, at least 0.
    """
    return filter_norms(group, power=2).sqrt()


def growing_reg_penalty(groups: Sequence[ChannelGroup], removals: Sequence[Sequence[int]]) -> Penalty:
    """lambda / 2 * sum ||w||^2 over the channels that are to go, lambda growing from 0 (GReg-1, Wang et al. 2021).

    w are the channel's filters and its batch norms' scales and shifts, without which a silenced filter would still
    leave a constant behind. The paper adds a step to lambda every few iterations up to the ceiling; here the step is
    such that the ceiling is reached as the phase ends.
    """
    pressed: list[tuple[Tensor, Tensor]] = []
    for group, gone in zip(groups, removals, strict=True):
        chosen = torch.tensor(sorted(gone), dtype=torch.long)
        for member in (own for own in group.members if own.outputs):
            where = member.indices[torch.isin(member.channels, chosen)]
            pressed += [(own, where.to(own.device)) for own in member.layer.parameters(recurse=False)]

    def penalty(progress: float) -> Tensor:
        total = torch.stack([parameter[where].square().sum() for parameter, where in pressed]).sum()
        return CEILING * progress / 2 * total

    return penalty
