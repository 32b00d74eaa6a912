"""Every row: the largest bank there is, and the most exact."""

from __future__ import annotations

import torch

from anomaly.coreset.coreset import Coreset
from anomaly.coreset.rows import Rows
from anomaly.progress import Track, quiet


def full_coreset(
    rows: Rows,
    size: int,
    *,
    coverage: float | None = None,
    seed: int = 0,
    memory: int | None = None,
    track: Track = quiet,
) -> Coreset:
    """All rows in their order, whatever the size; the radius is 0."""
    return Coreset(torch.arange(len(rows)), 0.0)
