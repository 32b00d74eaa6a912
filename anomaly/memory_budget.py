"""What a prediction may take of a memory budget: how many images at once, and how large the blocks of a search."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from anomaly.features import BATCH

_MAPS = 8  # a network holds about so many times its tapped maps while it runs (ResNet-18: 5, MobileNetV3: 8)
_COPIES = 3  # of the patches: pooled, resized, joined
_FLOAT = 4


def images_within(memory: int | None, maps: Sequence[Tensor], patches: Tensor) -> int:
    """How many images to run at once, 1 to 16, from the maps (1, C_i, H_i, W_i) and patches (1, H, W, D) of one.

    Half of `memory`, in bytes, is for the network and the patches; None sets no limit.
    """
    if memory is None:
        return BATCH
    one = _FLOAT * (_MAPS * sum(each.numel() for each in maps) + _COPIES * patches.numel())
    return max(1, min(BATCH, memory // 2 // one))


def search_bytes(memory: int | None) -> int | None:
    """The quarter of `memory` that the distances of an exact search may take; None: what suits the machine."""
    return None if memory is None else memory // 4
