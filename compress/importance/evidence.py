"""What a criterion may look at besides the weights of a group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compress.channel_statistics import ChannelStatistics


@dataclass(frozen=True)
class Evidence:
    """Gathered once per ranking, before any group is scored.

    Attributes:
        generator: for criteria that draw.
        activations: statistics of the feature map that enters a layer, by the layer's name, and of the
            map that a stage gives, by the stage's name.
        taylor: per layer, the importance (outputs,) of each output channel by its gradient, in float64.
    """

    generator: torch.Generator
    activations: Mapping[str, ChannelStatistics] = field(default_factory=dict)
    taylor: Mapping[str, Tensor] = field(default_factory=dict)
