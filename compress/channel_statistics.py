"""Statistics of feature maps, channel by channel, streamed over any number of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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


class RunningStatistics:
    """Statistics of values that come in parts, in memory that does not grow with their number.

    A part is reduced in float32 around its own mean, so that a large offset cancels nothing; parts are merged in
    float64 by the pairwise update of Chan, Golub and LeVeque (1983, eq. 2.1). How the values are cut into parts, and
    in which order they come, therefore changes the result by rounding alone.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._mean = self._m2 = self._absolute = self._positive = torch.zeros(())

    def add(self, values: Tensor, weights: Tensor | None = None) -> None:
        """Take in `values` (positions, channels) of any float type, by default each position with weight 1.

        `weights` (positions,) are at least 0; a part whose weights are all 0 changes nothing.
        """
        weight = float(len(values) if weights is None else weights.sum())
        if weight <= 0:
            return
        values = values.float()
        total = _total(values, weights)
        mean = total / weight
        scratch = values.clamp_min(0)  # one buffer for all that follows: a map of a batch is many megabytes
        absolute = 2 * _total(scratch, weights) - total
        # The sign of the positive part is 1 or 0: four times as fast as summing comparisons.
        positive = _total(scratch.sign_(), weights)
        torch.sub(values, mean, out=scratch)
        # What the rounding of the mean left over: beside a large offset it is no longer small.
        rest = _total(scratch, weights).double() / weight
        m2 = _total(scratch.square_(), weights).double() - weight * rest.square()
        self._merge(weight, *(part.double().cpu() for part in (mean.double() + rest, m2, absolute, positive)))

    def merge(self, other: RunningStatistics) -> None:
        """Take in all values that `other` has taken in."""
        if other.weight > 0:
            self._merge(other._weight, other._mean, other._m2, other._absolute, other._positive)

    def _merge(self, weight: float, mean: Tensor, m2: Tensor, absolute: Tensor, positive: Tensor) -> None:
        both = self._weight + weight
        apart = mean - self._mean
        self._mean = self._mean + apart * (weight / both)
        self._m2 = self._m2 + m2 + apart.square() * (self._weight * weight / both)
        self._absolute = self._absolute + absolute
        self._positive = self._positive + positive
        self._weight = both

    @property
    def weight(self) -> float:
        """Sum of all weights so far: 0 when there is nothing to tell."""
        return self._weight

    def result(self) -> ChannelStatistics:
        """The statistics of all values so far; there must be some."""
        return ChannelStatistics(
            l1=self._absolute / self._weight,
            variance=self._m2 / self._weight,
            sparsity=1 - self._positive / self._weight,
        )


def _total(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.sum(dim=0) if weights is None else weights @ values
