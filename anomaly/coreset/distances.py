"""Squared distances of many rows to many centres, block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from anomaly.coreset.rows import Rows
from anomaly.progress import Track, quiet

_BLOCK = 2048  # rows at a time: their products with a few hundred centres stay in the processor's cache
_CELLS = 1 << 20  # products of a block at most
_STRETCH = 1 << 16  # rows that are fetched together


def nearest_squared(rows: Tensor, row_norms: Tensor, centres: Tensor, centre_norms: Tensor) -> Tensor:
    """Squared distances |x|^2 - 2 x.c + |c|^2 of `rows` (N, D) to their nearest of `centres` (K, D); norms squared."""
    return torch.addmm(centre_norms, rows, centres.T, alpha=-2).amin(dim=1).add_(row_norms)


def distances_to(rows: Rows, centres: Tensor, *, track: Track = quiet) -> Tensor:
    """Distances (N,) of all `rows` (N, D) to their nearest among `centres` (K, D)."""
    origin = centres.mean(dim=0)  # rounding grows with the distance to it (see `anomaly.coreset.greedy`)
    centres = centres - origin
    centre_norms = centres.square().sum(dim=1)
    block = max(1, min(_BLOCK, _CELLS // len(centres)))
    found = []
    starts = range(0, len(rows), _STRETCH)
    for start in track(starts, "distances", len(starts)):
        for part in torch.split(rows[start : start + _STRETCH].to(centres.device), block):
            moved = part - origin
            found.append(nearest_squared(moved, moved.square().sum(dim=1), centres, centre_norms))
    return torch.cat(found).clamp_min_(0).sqrt_()


def covering_radius(rows: Rows, centres: Tensor) -> float:
    """Largest distance of any of `rows` (N, D) to its nearest among `centres` (K, D)."""
    return float(distances_to(rows, centres).max())
