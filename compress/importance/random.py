"""Random: every channel is worth the same in expectation."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.channel_groups import ChannelGroup


def random(group: ChannelGroup, generator: torch.Generator) -> Tensor:
    """Uniform scores in [0, 1) of shape (group.size,), drawn from the run's generator."""
    return torch.rand(group.size, generator=generator)
