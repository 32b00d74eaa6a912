"""What a coreset is drawn from: rows in memory, on disk, or projected as they are read."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

PROJECTION = 128
STRETCH = 1 << 12  # rows that are read together


class Rows(Protocol):
    """Features (N, D) of which stretches can be had as float32. A tensor is one, and so is a file of features."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, stretch: slice, /) -> Tensor: ...


class ProjectedRows:
    """Rows (N, D) on directions (D, P), multiplied stretch by stretch as they are asked for."""

    def __init__(self, rows: Rows, directions: Tensor) -> None:
        self._rows, self._directions = rows, directions
        self.shape = (len(rows), directions.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, stretch: slice, /) -> Tensor:
        start, stop, _ = stretch.indices(len(self))
        projected = torch.empty(stop - start, self.shape[1])
        for at in range(start, stop, STRETCH):
            until = min(at + STRETCH, stop)
            torch.mm(self._rows[at:until], self._directions, out=projected[at - start : until - start])
        return projected


def working_bytes(rows: Rows) -> int:
    """What greedy k-centre needs for rows (N, D): the rows themselves, their norms, bounds and indices."""
    return len(rows) * (4 * rows.shape[1] + 64)


def random_directions(dimensions: int, kept: int = PROJECTION, *, seed: int = 0) -> Tensor:
    """Gaussian directions (D, P), scaled so that distances hold on average (Johnson and Lindenstrauss 1984)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(dimensions, kept, generator=generator).div_(math.sqrt(kept))


def random_projection(features: Tensor, dimensions: int = PROJECTION, *, seed: int = 0) -> Tensor:
    """Features (N, D) on `dimensions` random directions.

    Features of no more dimensions than asked for come back as they are.
    """
    if features.shape[1] <= dimensions:
        return features
    directions = random_directions(features.shape[1], dimensions, seed=seed)
    projected: Tensor = features @ directions.to(features.device)
    return projected
