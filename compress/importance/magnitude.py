"""Magnitude: a channel is worth the norm of the filters that make it."""

from __future__ import annotations

from torch import Tensor

from compress.graph import ChannelGroup
from compress.importance.evidence import Evidence
from compress.importance.filter_norms import filter_norms


def magnitude(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """L1 norms, s_j = sum |F_ij| (Li et al. 2017, section 3.1); tied layers as in `filter_norms`.

    Returns:
        (group.size,) scores, at least 0.
    """
    return filter_norms(group, power=1)


def magnitude_l2(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """L2 norms (Li et al. 2017, appendix 6.1 compares the two).

    Returns:
        (group.size,) scores, at least 0.
    """
    return filter_norms(group, power=2).sqrt()
