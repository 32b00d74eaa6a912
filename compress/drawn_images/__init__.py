"""Images drawn at random, to train on where no photographs are, and to add to few of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from torch import Tensor

from compress.drawn_images.scenes import scene
from compress.drawn_images.textures import texture
from compress.errors import CompressError, some_of
from compress.lazy_sequence import LazySequence

__all__ = ["DRAWINGS", "DrawnImages"]

DRAWINGS: dict[str, Callable[[int, np.random.Generator], Tensor]] = {"textures": texture, "scenes": scene}


class DrawnImages(LazySequence[Tensor]):
    """Images uint8 RGB (3, size, size): number `i` follows from seed and `i` alone, is drawn when asked for, and kept.

    Args:
        kind: one of `DRAWINGS`.
        count: how many, at least 1.
        size: side in pixels, at least 32.

    Raises:
        CompressError: an unknown kind, or a number outside its limits.
    """

    def __init__(self, kind: str, count: int, *, size: int = 256, seed: int = 0) -> None:
        if kind not in DRAWINGS:
            raise CompressError(f"no images of the kind {kind} can be drawn: choose {some_of(DRAWINGS, 9)}")
        for name, value, least in (("count", count, 1), ("size", size, 32), ("seed", seed, 0)):
            if value < least:
                raise CompressError(f"{name} {value} of {kind} must be at least {least}")
        self._draw, self._count, self._size, self._seed = DRAWINGS[kind], count, size, seed
        self._drawn: dict[int, Tensor] = {}
        self.fingerprint = hashlib.sha256(f"{kind}/1 {count} {size} {seed}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._count

    def _item(self, place: int) -> Tensor:
        if place not in self._drawn:
            self._drawn[place] = self._draw(self._size, np.random.default_rng((self._seed, place)))
        return self._drawn[place]
