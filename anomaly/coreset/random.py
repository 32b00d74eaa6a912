"""A uniform sample: what any other sampler has to beat."""

from __future__ import annotations

import math

import torch

from anomaly.coreset.coreset import Coreset
from anomaly.coreset.request import check_size
from anomaly.coreset.rows import Rows
from anomaly.progress import Track, quiet


def random_coreset(
    rows: Rows,
    size: int,
    *,
    coverage: float | None = None,
    seed: int = 0,
    memory: int | None = None,
    track: Track = quiet,
) -> Coreset:
    """`size` rows without replacement, each set as likely as any other; nothing is read, the radius is not known.

    Raises:
        AnomalyError: size outside [1, N].
    """
    check_size(size, len(rows))
    generator = torch.Generator().manual_seed(seed)
    return Coreset(torch.randperm(len(rows), generator=generator)[:size], math.nan)
