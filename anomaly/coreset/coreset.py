"""What a sampler gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Coreset:
    """Rows that stand for all, in the order of their choice.

    Attributes:
        indices: (K,) int64, all different.
        radius: every row lies within this distance of one of them, to the rounding of float32;
            NaN where the sampler does not know.
    """

    indices: Tensor
    radius: float
