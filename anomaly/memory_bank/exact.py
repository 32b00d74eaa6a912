"""Exact nearest neighbours without FAISS: a screen of lower bounds, or a blocked product |x|^2 - 2 x.y + |y|^2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly.memory_bank.screening import SMALLEST, Screen

_SCREEN_BYTES = 1 << 25  # of bounds at a time; more would leave the cache and be new pages each time
_QUERIES = 1024  # rows of a block of the product on a CPU: with the columns below 8 MB, which stays in the cache
_COLUMNS = 2048


class ExactIndex:
    """All vectors as they came, (K, D) float32; a search loses none that is nearest.

    On a CPU the nearest neighbour is found through a `Screen` of a sixth of the vectors' bytes, made at the first
    search. Several neighbours, small banks and CUDA take the whole product.

    Args:
        vectors: kept, not copied; a memory-mapped array stays on disk until it is read.
    """

    is_exact = True
    spec = "exact"

    def __init__(self, vectors: Tensor) -> None:
        self._set(vectors)

    @classmethod
    def read(cls, file: Path, *, memory_map: bool) -> ExactIndex:
        """The index in a file whose checksum is known to be right."""
        # Mode "c" lets torch have a writable array without a way to write to the file.
        vectors = np.load(file, mmap_mode="c" if memory_map else None, allow_pickle=False)
        return cls(torch.from_numpy(vectors))

    def write(self, file: Path) -> None:
        """Write what `read` reads.

        Raises:
            OSError: the disk refuses.
        """
        with file.open("wb") as stream:
            np.save(stream, self._vectors.cpu().numpy(), allow_pickle=False)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dimension(self) -> int:
        return int(self._vectors.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors as they are written."""
        return 4 * self._vectors.numel()

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append (N, D)."""
        self._set(torch.cat([self._vectors, torch.from_numpy(vectors).to(self._vectors.device)]))

    def keep(self, kept: NDArray[np.bool_]) -> bool:
        """Forget the rows that are not `kept` (K,); the others move up. Returns True: they are gone at once."""
        self.rebuild(kept)
        return True

    def rebuild(self, kept: NDArray[np.bool_]) -> None:
        """Hold the rows that are `kept` (K,) and nothing else."""
        self._set(self._vectors[torch.from_numpy(kept).to(self._vectors.device)])

    def search(
        self, queries: Tensor, k: int, *, live: NDArray[np.bool_] | None, block_bytes: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distances and rows (N, k) of the nearest vectors to queries (N, D), nearest first.

        Args:
            live: None always: removed rows are gone.
            block_bytes: memory for a block of products or bounds; what suits the machine by default.
        """
        if self._vectors.device != queries.device:
            self._set(self._vectors.to(queries.device))
        if k == 1 and queries.device.type == "cpu" and len(self) >= SMALLEST and self.dimension > 1:
            rows = self._screened(queries, block_bytes)
        else:
            rows = self._compared(queries, k, block_bytes)
        return _distances(queries, self._vectors, rows), rows

    def vectors_at(self, rows: Tensor) -> Tensor:
        """The vectors (..., D) of rows (...)."""
        return self._vectors[rows.to(self._vectors.device)]

    def vectors(self) -> Tensor:
        """All vectors (K, D)."""
        return self._vectors

    def _set(self, vectors: Tensor) -> None:
        self._vectors = vectors
        self._norms = torch.cat([part.square().sum(dim=1) for part in torch.split(vectors, 1 << 16)])
        self._screen: Screen | None = None

    def _screened(self, queries: Tensor, block_bytes: int | None) -> Tensor:
        if self._screen is None:
            self._screen = Screen(self._vectors)
        at_once = (block_bytes or _SCREEN_BYTES) // self._screen.query_bytes
        rows = torch.empty(len(queries), 1, dtype=torch.int64)
        found = torch.empty(len(queries), dtype=torch.bool)
        for block in torch.split(torch.arange(len(queries)), min(max(1, at_once), _QUERIES)):
            rows[block, 0], found[block] = self._screen.nearest(queries[block], self._vectors)
        if not found.all():
            rows[~found] = self._compared(queries[~found], 1, block_bytes)
        return rows

    def _compared(self, queries: Tensor, k: int, block_bytes: int | None) -> Tensor:
        rows, columns = _block(queries, block_bytes)
        return torch.cat([self._nearest(part, k, columns) for part in torch.split(queries, rows)])

    def _nearest(self, queries: Tensor, k: int, columns: int) -> Tensor:
        best: Tensor | None = None
        rows = torch.empty(0)
        for start in range(0, len(self._vectors), columns):
            block = slice(start, start + columns)
            # |x|^2 is the same for all of a query's candidates
            partial = torch.addmm(self._norms[block], queries, self._vectors[block].T, alpha=-2)
            if k == 1:
                near, at = partial.min(dim=1, keepdim=True)
            else:
                near, at = partial.topk(min(k, partial.shape[1]), largest=False)
            at = at + start
            if best is None:
                best, rows = near, at
            elif k == 1:
                rows = torch.where(near < best, at, rows)
                best = torch.minimum(best, near)
            else:
                both = torch.cat([best, near], dim=1)
                best, order = both.topk(min(k, both.shape[1]), largest=False)
                rows = torch.cat([rows, at], dim=1).gather(1, order)
        return rows


def _block(queries: Tensor, block_bytes: int | None) -> tuple[int, int]:
    """Queries and bank rows of one product; a smaller budget takes fewer queries, a GPU takes what it is given."""
    if block_bytes is None:
        block_bytes = 4 * _QUERIES * _COLUMNS if queries.device.type == "cpu" else 1 << 28
    columns = _COLUMNS if queries.device.type == "cpu" else 16 * _COLUMNS
    largest = _QUERIES if queries.device.type == "cpu" else 1 << 16
    return max(1, min(block_bytes // (4 * columns), largest)), columns


def _distances(queries: Tensor, vectors: Tensor, rows: Tensor) -> Tensor:
    """|x - y| of the found pairs (N, k), from the differences: the product's cancellation would show near 0."""
    return torch.stack([(queries - vectors[column]).square_().sum(dim=1) for column in rows.T], dim=1).sqrt_()
