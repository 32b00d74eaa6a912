"""Random: every channel is worth the same in expectation."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.graph import ChannelGroup
from compress.importance.evidence import Evidence


def random(group: ChannelGroup, evidence: Evidence) -> Tensor:
    """Uniform scores in [0, 1) of shape (group.size,), drawn from the run's generator."""
    return torch.rand(group.size, generator=evidence.generator)
