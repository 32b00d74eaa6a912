"""How much memory a prediction may take, and what fits into it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from anomaly.errors import AnomalyError

BATCH = 16  # images at a time, where memory allows
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_LEAST = 64 * 10**6
_MAPS = 8  # a network holds about so many times its tapped maps while it runs (ResNet-18: 5, MobileNetV3: 8)
_COPIES = 3  # of the patches: pooled, resized, joined


def parse_memory(text: str) -> int:
    """Bytes of `4G`, `500M`, `2Gi`; at least 64 MB.

    >>> parse_memory("4G"), parse_memory("512Mi")
    (4000000000, 536870912)

    Raises:
        AnomalyError: no amount of memory, or one too small for any image.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMG]i?|)B?", text.strip())
    if not found or found[2] == "ki":
        raise AnomalyError(f"memory {text!r} is no amount: write it like 4G or 500M")
    amount = int(float(found[1]) * _UNITS[found[2]])
    if amount < _LEAST:
        raise AnomalyError(f"memory {text} is below {_LEAST // 10**6}M, too little for one image: raise it")
    return amount


def images_within(memory: int | None, maps: Sequence[Tensor], patches: Tensor) -> int:
    """How many images to run at once, 1 to 16, seen from one image's maps and patches.

    Half of `memory` is for the network and the patches, a quarter for the distances of a search (`search_bytes`).
    """
    if memory is None:
        return BATCH
    # 4 bytes a float
    one = _MAPS * sum(m.numel() for m in maps) + _COPIES * patches.numel()
    return max(1, min(BATCH, memory // 2 // (4 * one)))


def search_bytes(memory: int | None) -> int | None:
    """What of `memory` the blocks of an exact search may take; None: what suits the machine."""
    return None if memory is None else memory // 4
