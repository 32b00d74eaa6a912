"""Statistics of feature maps, channel by channel, streamed over any number of images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ChannelStatistics:
    """Of one feature map over a whole set of images, each a float64 tensor of shape (channels,).

    Attributes:
        l1: mean of |a| over images and positions.
        variance: of a over images and positions (population).
        sparsity: share of positions where the channel is silent (a <= 0), in [0, 1].
    """

    l1: Tensor
    variance: Tensor
    sparsity: Tensor
