"""The registry of importance criteria: one file per method, one line here.

A criterion scores the channels of one group; channels with the smallest scores go first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.channel_groups import ChannelGroup
from compress.importance.magnitude import magnitude
from compress.importance.random import random


@dataclass(frozen=True)
class Method:
    """A criterion. `score(group, generator)` gives a float tensor of shape (group.size,)."""

    score: Callable[[ChannelGroup, torch.Generator], Tensor]
    summary: str
    paper: str


METHODS: dict[str, Method] = {
    "magnitude": Method(magnitude, "L1 norm of the filters that make a channel", "Li et al. 2017, arXiv 1608.08710"),
    "random": Method(random, "a seeded shuffle: the reference any method must beat", "-"),
}
