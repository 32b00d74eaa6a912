"""What a teacher's map asks of a student's: the same channels, or as many principal components."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.errors import CompressError

LEAST_CONTRAST = 0.1  # variance over the mean one, that an image's error is measured by at least
LEAST_VARIANCE = 0.01  # of a channel, as a share of its map's mean: a nearly silent one is no infinite error


class Target(Protocol):
    """Of one of the teacher's maps (N, C, H, W)."""

    def of(self, hint: Tensor) -> Tensor:
        """The map that the student should give, (N, K, H, W)."""

    def error(self, own: Tensor, wanted: Tensor) -> Tensor:
        """Mean squared distance over the target's variance, a scalar: 1 for a student that gives the mean."""


class ChannelTarget:
    """The teacher's channels as they are, for a student of its architecture; each counts over its own variance.

    Args:
        hints: the teacher's maps (N, C, H, W) that the variances are measured on.
    """

    def __init__(self, hints: Tensor) -> None:
        variance = hints.var((0, 2, 3), correction=0)
        floor = LEAST_VARIANCE * variance.mean().clamp_min(torch.finfo(torch.float32).tiny)
        self._scale = variance.clamp_min(floor).rsqrt().view(1, -1, 1, 1)

    def of(self, hint: Tensor) -> Tensor:
        return hint

    def error(self, own: Tensor, wanted: Tensor) -> Tensor:
        return ((own - wanted) * self._scale).square().mean()


class ComponentTarget:
    """The first principal components of the teacher's map, as many as the student's map has channels.

    No other orthogonal projection onto K dimensions keeps more of the squared distances between patches, which is what
    a memory bank compares. They are not whitened, for that would change the distances. Each image's error counts over
    the image's own variance: else busy photographs would outweigh the bare surfaces that a detector looks at.

    Args:
        hints: the teacher's maps (N, C, H, W) that the components are measured on.
        own: a map (1, K, H, W) of the untrained student.

    Raises:
        CompressError: K is more than C, or the student's map cannot be negative, as components are.
    """

    def __init__(self, hints: Tensor, own: Tensor) -> None:
        channels, width = hints.shape[1], own.shape[1]
        if width > channels:
            raise CompressError(
                f"the student's map at {own.shape[-1]} x {own.shape[-1]} has {width} channels and the teacher's "
                f"{channels}: give a wider teacher"
            )
        if bool((own >= 0).all()):
            raise CompressError(
                "the student's maps are never negative, and a teacher's principal components are: give a teacher of "
                "its own architecture, or a student whose blocks end without activation, such as mobilenet_v3_small"
            )
        patches = hints.permute(0, 2, 3, 1).flatten(0, 2).double()
        mean, tiny = patches.mean(0), torch.finfo(torch.float32).tiny
        values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
        values, vectors = values.flip(0)[:width].clamp_min(tiny), vectors.flip(1)[:, :width]
        self._weight = vectors.T.float()[:, :, None, None].contiguous()
        self._bias = -(mean @ vectors).float()
        self._floor = LEAST_CONTRAST * float(values.mean())
        wanted = self.of(hints)
        self._unit = float(self._relative(torch.zeros_like(wanted), wanted))

    def of(self, hint: Tensor) -> Tensor:
        return F.conv2d(hint, self._weight, self._bias)

    def error(self, own: Tensor, wanted: Tensor) -> Tensor:
        return self._relative(own, wanted.float()) / self._unit

    def _relative(self, own: Tensor, wanted: Tensor) -> Tensor:
        variance = wanted.var((2, 3), correction=0).mean(1)  # of each image
        return ((own - wanted).square().mean((1, 2, 3)) / (variance + self._floor)).mean()
