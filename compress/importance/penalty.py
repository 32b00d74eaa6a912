"""What a sparse phase adds to its loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Penalty = Callable[[float], Tensor]
"""Progress of the phase in [0, 1] to a scalar with gradients."""
