"""A FAISS index behind the same few verbs as `ExactIndex`: what FAISS has in many shapes, bent into one."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly.errors import AnomalyError
from anomaly.memory_bank.faiss_errors import reason_of

faiss: Any = importlib.import_module("faiss")  # its stubs know neither keyword parameters nor all classes

_BLOCK = 1 << 15  # rows added, searched or decoded at a time
_TRAIN_ROWS = 1 << 16
_TRAIN_ROWS_PER_LIST = 64
_SMALL = 1 << 22
_EF_SEARCH = 64
_EF_CONSTRUCTION = 64
_PROBED = 32  # one of so many lists is searched,
_LEAST_PROBED = 8  # but this many where there are few


class FaissIndex:
    """Vectors in the FAISS index that a factory string describes; rows are numbered in the order of their addition.

    Threads are torch's: FAISS has an OpenMP runtime of its own, and two that spin on the same cores
    slow each other down.
    """

    def __init__(self, index: Any, spec: str) -> None:
        self._index, self.spec = index, spec

    @classmethod
    def build(cls, spec: str, vectors: NDArray[np.float32], *, seed: int) -> FaissIndex:
        """Train on a sample of `vectors` (K, D), then add them all in blocks.

        Raises:
            AnomalyError: FAISS refuses.
        """
        made = cls(faiss.index_factory(vectors.shape[1], spec), spec)
        ivf = made._ivf
        lists = ivf.nlist if ivf else 0
        rows = min(len(vectors), max(_TRAIN_ROWS, _TRAIN_ROWS_PER_LIST * lists))
        sample = vectors
        if rows < len(vectors):
            sample = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), rows, replace=False))]
        if ivf:
            ivf.cp.seed = seed % 2**31
            ivf.cp.min_points_per_centroid = 1  # fewer than 39 a list is our choice: no warning on stderr
            ivf.nprobe = min(lists, max(_LEAST_PROBED, round(lists / _PROBED)))
        inner = made._inner
        if isinstance(inner, faiss.IndexPQ | faiss.IndexIVFPQ):
            inner.do_polysemous_training = False  # most of the time, for a filter that nobody uses
            inner.pq.cp.min_points_per_centroid = 1
        if hnsw := made._hnsw:
            hnsw.hnsw.efConstruction, hnsw.hnsw.efSearch = _EF_CONSTRUCTION, _EF_SEARCH
        # Learning codes is thousands of tiny steps: on little data a second thread only waits for the first.
        with _refusals(spec), _threads(1 if sample.size < _SMALL else None):
            made._index.train(sample)
        made.add(vectors)
        return made

    @classmethod
    def read(cls, file: Path, spec: str, *, memory_map: bool) -> FaissIndex:
        """An index from a file whose checksum is known to be right.

        Raises:
            AnomalyError: FAISS cannot read it.
        """
        # Two mechanisms in FAISS: inverted lists left on disk, and views of a mapped file. Both at once crash.
        flag = (faiss.IO_FLAG_MMAP if "IVF" in spec else faiss.IO_FLAG_MMAP_IFC) if memory_map else 0
        with _refusals(spec):
            return cls(faiss.read_index(str(file), flag), spec)

    def write(self, file: Path) -> None:
        """Write what `read` reads.

        Raises:
            OSError: the disk refuses.
        """
        try:
            faiss.write_index(self._index, str(file))
        except RuntimeError as error:
            raise OSError(reason_of(error)) from error

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    @property
    def nbytes(self) -> int:
        """Bytes of the index as it is written."""
        return len(faiss.serialize_index(self._index))

    @property
    def is_exact(self) -> bool:
        """Whether the vectors are held as they came."""
        kind = faiss.downcast_index(self._index)
        return isinstance(kind, faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexHNSWFlat)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append (N, D). A graph is built by one thread: by several it would differ from run to run."""
        with _refusals(self.spec), _threads(1 if self._hnsw else None):
            for start in range(0, len(vectors), _BLOCK):
                self._index.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))

    def keep(self, kept: NDArray[np.bool_]) -> bool:
        """Forget the rows that are not `kept` (K,); the others move up. Returns whether they are gone at once.

        A graph cannot lose its nodes: searches are to pass over them (`live`) until `rebuild`.

        Raises:
            AnomalyError: this index can forget nothing.
        """
        if self._hnsw:
            return False
        if ivf := self._ivf:
            ivf.make_direct_map(False)
        try:
            self._index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(~kept)))
        except RuntimeError as error:
            raise AnomalyError(
                f"index {self.spec} cannot forget patches: fit anew with --index exact, ivf, hnsw or pca_ivf"
            ) from error
        if ivf:
            self._renumber(ivf, np.cumsum(kept) - 1)
        return True

    def rebuild(self, kept: NDArray[np.bool_]) -> None:
        """Build the index anew of the rows that are `kept` (K,), as it remembers them, and what it learnt."""
        rebuilt = faiss.clone_index(self._index)
        rebuilt.reset()  # the trained part stays
        rows = np.flatnonzero(kept)
        with _refusals(self.spec), _threads(1):
            for start in range(0, len(rows), _BLOCK):
                rebuilt.add(self._index.reconstruct_batch(rows[start : start + _BLOCK]))
        self._index = rebuilt

    def search(
        self, queries: Tensor, k: int, *, live: NDArray[np.bool_] | None, block_bytes: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distances and rows (N, k) of vectors near to queries (N, D), nearest first; `live` as for `ExactIndex`."""
        wanted = np.ascontiguousarray(queries.cpu().numpy(), dtype=np.float32)
        mask = None if live is None else np.packbits(live, bitorder="little")
        squared = np.empty((len(wanted), k), dtype=np.float32)
        rows = np.empty((len(wanted), k), dtype=np.int64)
        with _threads():
            for start in range(0, len(wanted), _BLOCK):
                block = slice(start, start + _BLOCK)
                squared[block], rows[block] = self._search(wanted[block], k, mask, thorough=False)
            # Where the lists or the part of the graph that were looked at held too few, look everywhere.
            if len(short := np.flatnonzero((rows < 0).any(axis=1))):
                squared[short], rows[short] = self._search(wanted[short], k, mask, thorough=True)
                squared[short[~np.isfinite(wanted[short]).all(axis=1)]] = np.nan  # as of an exact search, not 1e19
        # FAISS computes |x|^2 - 2 x.y + |y|^2, which rounding can push below 0.
        distances = torch.from_numpy(np.sqrt(np.maximum(squared, 0)))
        return distances.to(queries.device), torch.from_numpy(rows).to(queries.device)

    def vectors_at(self, rows: Tensor) -> Tensor:
        """The vectors (..., D) of rows (...), as well as the index remembers them."""
        if ivf := self._ivf:
            ivf.make_direct_map(True)  # at once where it is there already
        flat = self._index.reconstruct_batch(np.ascontiguousarray(rows.cpu().numpy().ravel()))
        return torch.from_numpy(flat).view(*rows.shape, -1)

    def vectors(self) -> Tensor:
        """All vectors (K, D), as well as the index remembers them."""
        return torch.from_numpy(self._index.reconstruct_n(0, len(self)))

    @property
    def _ivf(self) -> Any | None:
        return faiss.try_extract_index_ivf(self._index)

    @property
    def _inner(self) -> Any:
        """The index behind a rotation or reduction, if there is one."""
        outer = faiss.downcast_index(self._index)
        return faiss.downcast_index(outer.index) if isinstance(outer, faiss.IndexPreTransform) else outer

    @property
    def _hnsw(self) -> Any | None:
        return self._inner if isinstance(self._inner, faiss.IndexHNSW) else None

    def _search(
        self, queries: NDArray[np.float32], k: int, mask: NDArray[np.uint8] | None, *, thorough: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        selector = None if mask is None else faiss.IDSelectorBitmap(mask)
        found: tuple[NDArray[np.float32], NDArray[np.int64]]
        if selector is None and not thorough:
            found = self._index.search(queries, k)
        else:
            found = self._index.search(queries, k, params=_parameters(self._index, selector, thorough=thorough))
        return found

    @staticmethod
    def _renumber(ivf: Any, new: NDArray[np.int64]) -> None:
        """Give the rows that are left in the inverted lists their new numbers."""
        for number in range(ivf.nlist):
            if size := ivf.invlists.list_size(number):
                ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
                ids[:] = new[ids]


def _parameters(index: Any, selector: Any | None, *, thorough: bool) -> Any:
    """Search parameters of the right class, with a selector of rows; `thorough` looks into every list."""
    index = faiss.downcast_index(index)
    chosen = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_parameters(index.index, selector, thorough=thorough))
    if isinstance(index, faiss.IndexIVF):
        kind = faiss.IVFPQSearchParameters if isinstance(index, faiss.IndexIVFPQ) else faiss.SearchParametersIVF
        return kind(nprobe=index.nlist if thorough else index.nprobe, **chosen)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=index.ntotal if thorough else index.hnsw.efSearch, **chosen)
    return faiss.SearchParameters(**chosen)


@contextlib.contextmanager
def _threads(count: int | None = None) -> Iterator[None]:
    """FAISS on `count` threads, by default as many as torch has."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextlib.contextmanager
def _refusals(spec: str) -> Iterator[None]:
    """FAISS's exceptions, which name a source file, as one sentence."""
    try:
        yield
    except RuntimeError as error:
        raise AnomalyError(
            f"FAISS refuses index {spec}: {reason_of(error)}; take another --index or keep more patches"
        ) from error
