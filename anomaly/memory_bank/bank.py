"""The memory bank: normal patches, the image that each came from, and the nearest of them to a new patch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly.errors import AnomalyError
from anomaly.memory_bank import files
from anomaly.memory_bank.exact import ExactIndex
from anomaly.memory_bank.faiss_index import FaissIndex
from anomaly.memory_bank.kinds import EXACT, resolve_index

_REMOVED = -1  # in place of the image of a patch that a graph still holds


class Index(Protocol):
    """What the bank asks of an index; the classes tell what each does."""

    spec: str

    def __len__(self) -> int: ...
    @property
    def dimension(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def is_exact(self) -> bool: ...
    def add(self, vectors: NDArray[np.float32]) -> None: ...
    def keep(self, kept: NDArray[np.bool_]) -> bool: ...
    def rebuild(self, kept: NDArray[np.bool_]) -> None: ...
    def search(
        self, queries: Tensor, k: int, *, live: NDArray[np.bool_] | None, block_bytes: int | None = None
    ) -> tuple[Tensor, Tensor]: ...
    def vectors_at(self, rows: Tensor) -> Tensor: ...
    def vectors(self) -> Tensor: ...
    def write(self, file: Path) -> None: ...


class MemoryBank:
    """Patch features and an index that searches them by L2 distance.

    Args:
        features: (K, D) float32, K at least 1.
        images: (K,) the image that each patch came from, at least 0; all 0 by default.
        index: `auto`, a kind (`INDEX_KINDS`) or a FAISS factory string.
        latency_ms: for `auto`, the wish for the search of one image.
        seed: of the sample that an index learns from.

    Raises:
        AnomalyError: no patches, values that are not finite, or an index that cannot be made of them.
    """

    def __init__(
        self,
        features: Tensor,
        images: Tensor | None = None,
        *,
        index: str = EXACT,
        latency_ms: float | None = None,
        seed: int = 0,
    ) -> None:
        if features.ndim != 2 or not len(features):
            raise AnomalyError(
                f"a memory bank needs patches as (K, D), not {tuple(features.shape)}: add training images"
            )
        _require_finite(features)
        self._images = _image_numbers(images, len(features))
        self._file: Path | None = None
        spec = resolve_index(index, len(features), features.shape[1], latency_ms)
        self._index: Index = (
            ExactIndex(features.float().contiguous())
            if spec == EXACT
            else FaissIndex.build(spec, _array(features), seed=seed)
        )

    def __len__(self) -> int:
        return int((self._images != _REMOVED).sum())

    @property
    def index(self) -> str:
        """`exact`, or the factory string of the FAISS index."""
        return self._index.spec

    @property
    def dimension(self) -> int:
        """Length D of a patch's vector."""
        return self._index.dimension

    @property
    def images(self) -> Tensor:
        """(K,) int64: the image that each patch came from."""
        return torch.from_numpy(self._images[self._images != _REMOVED].astype(np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the index and of the image numbers."""
        return self._index.nbytes + self._images.nbytes

    @property
    def vectors(self) -> Tensor:
        """The patches (K, D), in the order of `images`.

        Raises:
            AnomalyError: the index holds them compressed.
        """
        if not self._index.is_exact:
            raise AnomalyError(
                f"index {self.index} holds compressed patches, not the vectors: fit with --index exact, ivf or hnsw"
            )
        live = self._live()
        return self._index.vectors() if live is None else self._index.vectors()[torch.from_numpy(live)]

    def nearest(self, patches: Tensor) -> Tensor:
        """Distances (N,) of patches (N, D) to their nearest neighbours in the bank, at least 0."""
        return self.search(patches, 1)[0][:, 0]

    def search(self, patches: Tensor, k: int, *, block_bytes: int | None = None) -> tuple[Tensor, Tensor]:
        """Distances and rows (N, min(k, K)) of the nearest neighbours of patches (N, D), nearest first.

        Rows are good for `vectors_at` until patches are removed.

        Args:
            block_bytes: memory for the distances of an exact search; by default what suits the cache.

        Raises:
            AnomalyError: patches of another length.
        """
        self._require_dimension(patches)
        return self._index.search(patches, min(k, len(self)), live=self._live(), block_bytes=block_bytes)

    def vectors_at(self, rows: Tensor) -> Tensor:
        """The vectors (..., D) of rows (...) that `search` gave; what the index remembers, if it compresses."""
        return self._index.vectors_at(rows)

    def add(self, features: Tensor, images: Tensor | None = None) -> None:
        """Add patches (N, D) of new images (N,). What the index learnt (lists, codes, rotation) stays as it is.

        Without `images` they get the next number that is free.
        """
        self._require_dimension(features)
        _require_finite(features)
        numbers = _image_numbers(images, len(features), default=int(self._images.max()) + 1)
        self._own()
        self._index.add(_array(features))
        self._images = np.concatenate([self._images, numbers])

    def remove(self, images: Tensor) -> int:
        """Take out all patches of `images` (n,); returns how many patches that were.

        Raises:
            AnomalyError: an image without patches in the bank, all images at once, or an index that cannot forget.
        """
        unwanted = images.cpu().numpy().ravel()
        if len(absent := np.setdiff1d(unwanted, self._images)) or (unwanted < 0).any():
            named = absent[0] if len(absent) else unwanted.min()
            raise AnomalyError(f"image {named} has no patch in the bank: its `images` names those that have")
        kept = ~np.isin(self._images, unwanted) & (self._images != _REMOVED)
        removed = len(self) - int(kept.sum())
        if not kept.any():
            raise AnomalyError(f"removing all {len(self)} patches leaves no bank: keep an image, or fit anew")
        self._own()
        if self._index.keep(kept):
            self._images = self._images[kept]
        else:
            self._images = np.where(kept, self._images, _REMOVED)
        return removed

    def compact(self) -> None:
        """Free what removed patches still take: a graph (HNSW) is built anew, other indexes have done it already."""
        live = self._live()
        if live is not None:
            self._own()
            self._index.rebuild(live)
            self._images = self._images[live]

    def save(self, folder: str | Path) -> None:
        """Write the bank to `folder`, made or replaced in one step: readers see the old bank or the new one, whole.

        Raises:
            AnomalyError: it cannot be written.
        """
        files.write(Path(folder), self._index, self._images)

    @classmethod
    def load(cls, folder: str | Path, *, memory_map: bool = True) -> MemoryBank:
        """A bank that `save` wrote, its checksums compared.

        Args:
            memory_map: leave the vectors on disk and read what a search needs; processes that read one bank share
                its memory. Adding or removing reads them all first.

        Raises:
            AnomalyError: no bank there, or a damaged one.
        """
        bank = cls.__new__(cls)
        bank._index, bank._images, file = files.read(Path(folder), memory_map=memory_map)
        bank._file = file if memory_map else None
        return bank

    def _require_dimension(self, patches: Tensor) -> None:
        if patches.ndim != 2 or patches.shape[1] != self.dimension:
            raise AnomalyError(
                f"patches of shape {tuple(patches.shape)} do not fit a bank of {self.dimension} dimensions: "
                "embed them by the detector that the bank belongs to"
            )

    def _own(self) -> None:
        """Before a change: FAISS crashes where it writes to a mapped file."""
        if self._file is not None and self.index != EXACT:
            if not self._file.exists():
                raise AnomalyError(f"the memory bank {self._file.parent} was replaced meanwhile: load it anew")
            self._index = FaissIndex.read(self._file, self.index, memory_map=False)
        self._file = None

    def _live(self) -> NDArray[np.bool_] | None:
        """Which rows are not removed; None where all are there."""
        live = self._images != _REMOVED
        return None if live.all() else live


def _require_finite(features: Tensor) -> None:
    # In blocks: the answers for all values at once would take a quarter of their memory.
    if not all(block.isfinite().all() for block in torch.split(features, 1 << 16)):
        raise AnomalyError("the patches hold values that are not finite: the backbone's weights are damaged")


def _array(features: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(features.cpu().numpy(), dtype=np.float32)


def _image_numbers(images: Tensor | None, count: int, default: int = 0) -> NDArray[np.int32]:
    numbers = np.full(count, default) if images is None else images.cpu().numpy()
    if numbers.shape != (count,):
        raise AnomalyError(
            f"{count} patches and image numbers of shape {numbers.shape}: give one number for each patch"
        )
    if count and not 0 <= numbers.min() <= numbers.max() < 2**31:
        raise AnomalyError(f"image number {numbers.min()} or {numbers.max()} is outside 0 to 2^31 - 1: renumber them")
    return numbers.astype(np.int32)
