"""Which index a bank is searched by: names for the usual ones, FAISS factory strings for all others.

A new kind is one entry in `INDEX_KINDS`.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import torch

from anomaly.errors import AnomalyError
from anomaly.memory_bank.faiss_errors import reason_of

AUTO, EXACT = "auto", "exact"
PATCHES = 784  # of one image at stride 8
_EXACT_BYTES = 1 << 30  # `auto` keeps banks up to this size exact: 700,000 patches of ResNet-18
_PQ_CENTROIDS = 256


@dataclass(frozen=True)
class IndexKind:
    """A named index: its FAISS factory string for a bank of K vectors of D dimensions; None: exact, without FAISS."""

    summary: str
    factory: Callable[[int, int], str] | None


def _lists(size: int) -> int:
    """Inverted lists for K vectors: the power of two nearest to 2 sqrt(K), with 39 vectors a list to train on."""
    wanted = 2 ** round(torch.tensor(2 * size**0.5).log2().item())
    return max(1, min(int(wanted), size // 39))


def _reduced(dimension: int) -> int:
    """A quarter of the dimensions: 16 times fewer bytes once each takes one."""
    return max(1, dimension // 4)


def _bytes(dimension: int) -> int:
    """PQ codes per vector: the largest divisor of D that is at most D / 4."""
    return next(m for m in range(max(1, dimension // 4), 0, -1) if dimension % m == 0)


INDEX_KINDS: dict[str, IndexKind] = {
    EXACT: IndexKind("every patch compared, a blocked matrix product; nothing lost", None),
    "ivf": IndexKind(
        "inverted lists: only the nearest lists are searched; fast, full size", lambda k, d: f"IVF{_lists(k)},Flat"
    ),
    "hnsw": IndexKind("a graph of neighbours: fast at any size, slow to build, a fifth larger", lambda k, d: "HNSW32"),
    "sq8": IndexKind("every patch in 8 bits a dimension: a quarter of the bytes, slow", lambda k, d: "SQ8"),
    "fp16": IndexKind("every patch in 16 bits a dimension: half the bytes, slow", lambda k, d: "SQfp16"),
    "ivf_pq": IndexKind(
        "inverted lists of product codes, D/4 bytes a patch", lambda k, d: f"IVF{_lists(k)},PQ{_bytes(d)}"
    ),
    "pca": IndexKind(
        "a quarter of the dimensions, 8 bits each: 1/16 of the size", lambda k, d: f"PCA{_reduced(d)},SQ8"
    ),
    "pca_ivf": IndexKind(
        "as pca, in inverted lists: small and fast", lambda k, d: f"PCA{_reduced(d)},IVF{_lists(k)},SQ8"
    ),
}


def choose_index(size: int, dimension: int, latency_ms: float | None = None) -> str:
    """The kind that `auto` stands for.

    Exact up to 1 GB of vectors, `pca_ivf` beyond. With a wish for the milliseconds that the search of one image may
    take, exact where this machine's matrix product is fast enough, which is measured, else `ivf` up to 1 GB.

    Args:
        size: vectors in the bank, dimension: of each.
    """
    if 4 * size * dimension > _EXACT_BYTES:
        return "pca_ivf"
    if latency_ms is None or exact_ms(size, dimension) <= latency_ms:
        return EXACT
    return "ivf"


def exact_ms(size: int, dimension: int) -> float:
    """Milliseconds that an exact search of one image's 784 patches should take here, from a small product."""
    columns = min(size, 2048)
    queries, bank = torch.ones(PATCHES, dimension), torch.ones(columns, dimension)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(queries, bank.T).min(dim=1)
        times.append(time.perf_counter() - start)
    return min(times) * 1000 * size / columns


def resolve_index(index: str, size: int, dimension: int, latency_ms: float | None = None) -> str:
    """`exact`, or a FAISS factory string that can be made of `size` vectors, from a kind, `auto` or such a string.

    Raises:
        AnomalyError: as `check_index`, or an index that this bank cannot fill.
    """
    check_index(index, latency_ms)
    if index == AUTO:
        index = choose_index(size, dimension, latency_ms)
    kind = INDEX_KINDS.get(index)
    if kind is None:
        spec = index
    elif kind.factory is None:
        return EXACT
    else:
        spec = kind.factory(size, dimension)
    _check_factory(spec, size, dimension)
    return spec


def check_index(index: str, latency_ms: float | None = None) -> None:
    """Refuse, before any work, what is neither a kind, nor `auto`, nor looks like a FAISS factory string.

    Raises:
        AnomalyError: see above, a wish for the milliseconds that is not above 0, or one where the index is named.
    """
    if latency_ms is not None and index != AUTO:
        raise AnomalyError(f"{latency_ms:g} ms are a wish for index auto, and the index is {index}: leave one out")
    if latency_ms is not None and not latency_ms > 0:
        raise AnomalyError(f"a search of {latency_ms:g} ms cannot be had: wish for a time above 0, like 20")
    if index == AUTO or index in INDEX_KINDS or re.match(r"(?:[A-Z]|\d+x)[A-Za-z]*\d*", index):
        return
    near = difflib.get_close_matches(index, [AUTO, *INDEX_KINDS], n=1)
    meant = f", perhaps {near[0]}?" if near else ""
    raise AnomalyError(
        f"no index {index!r}{meant}: there are auto, {', '.join(INDEX_KINDS)}, "
        "and FAISS factory strings such as PCA64,IVF256,SQ8"
    )


def _check_factory(spec: str, size: int, dimension: int) -> None:
    """FAISS ends some of these with an assertion in C++, others with a bank that finds nothing."""
    if re.search(r"IVF.*,[^,]*\dfs", spec):
        raise AnomalyError(f"index {spec}: FAISS crashes where vectors are read out of fast-scan lists: drop the fs")
    inner = dimension
    for part in spec.split(","):
        if reduced := re.fullmatch(r"(?:PCA[RW]*|OPQ\d+_|RR)(\d+)", part):
            inner = int(reduced[1])
            if part.startswith("PCA") and inner > min(size, dimension):
                raise AnomalyError(
                    f"{part} keeps {inner} dimensions of {dimension} from {size} patches: at most "
                    f"{min(size, dimension)} can be kept; lower it"
                )
        elif (lists := re.match(r"IVF(\d+)", part)) and int(lists[1]) > size:
            raise AnomalyError(f"{part} makes more lists than the bank has patches ({size}): make fewer lists")
        if codes := re.match(r"O?PQ(\d+)(?:x(\d+))?", part):
            if inner % int(codes[1]):
                divisors = [m for m in range(1, inner + 1) if inner % m == 0]
                near = sorted(divisors, key=lambda m: abs(m - int(codes[1])))[:2]
                raise AnomalyError(
                    f"{part} cuts {inner} dimensions into {codes[1]} parts, which leaves a rest: take "
                    f"{' or '.join(str(m) for m in sorted(near))} parts"
                )
            needed = 2 ** int(codes[2] or 8)
            if size < needed:
                raise AnomalyError(
                    f"{part} learns {needed} centroids, and the bank has {size} patches: "
                    "keep more patches or take --index exact"
                )
    try:
        faiss.index_factory(dimension, spec)
    except RuntimeError as error:
        raise AnomalyError(
            f"FAISS makes no index {spec!r} of {dimension} dimensions ({reason_of(error)}): "
            f"take one of {', '.join(INDEX_KINDS)}, or correct it"
        ) from error
