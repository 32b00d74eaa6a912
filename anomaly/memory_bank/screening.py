"""Which rows of a bank can be nearest at all: a lower bound of every distance from a third of the arithmetic.

In an orthonormal basis of the bank's principal components let x1 be the first components of x and x2 the rest.
By Cauchy and Schwarz on the rest

    |x - y|^2  >=  |x|^2 + |y|^2 - 2 (x1.y1 + |x2| |y2|),

which is one matrix product with a column more. It is taken in bfloat16 where the processor multiplies that
faster, and lowered by a bound of the rounding, so that no nearest neighbour is ever lost: a row whose bound
is above the true distance of the best row so far is out, and the few others are compared in full.
"""

from __future__ import annotations

import functools
import time

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 2048  # a smaller bank is faster compared in full
_SAMPLE = 1 << 15  # rows that the components are learnt from
_ENERGY = 0.9  # share of the variance that x1 is to hold
_MULTIPLE = 32  # of the columns of the product
_EXTRA = 3  # columns besides the components: |x2|, and |y|^2 in two parts
_COLUMNS = 4096  # bank rows of one product
_GROUP = 32  # bank rows looked at together
_GROUPS = _COLUMNS // _GROUP  # of a block
_HOPELESS = 0.15  # share of the bank that a query may still have to compare; beyond, the whole bank is faster
_PAIRS = 1 << 14  # pairs compared at a time
_SLACK = 2**-15  # of |x|^2 + |y|^2: what the two parts of |y|^2 leave out, and the rounding of float32 sums
_CANCELLED = 2**-18  # of |x|^2: what rounding can take from |x2|^2 = |x|^2 - |x1|^2 where little is left


class Screen:
    """The part of every row of a bank (K, D), D at least 2, that the bound needs, in blocks of 4096 rows."""

    def __init__(self, vectors: Tensor) -> None:
        step = -(-len(vectors) // _SAMPLE)
        sample = vectors[::step]
        self._mean = sample.mean(dim=0)
        values, basis = torch.linalg.eigh(torch.cov((sample - self._mean).T, correction=0))
        energy = values.flip(0).clamp_min(0).cumsum(0)
        enough = int((energy < _ENERGY * energy[-1]).sum()) + 1 + _EXTRA
        columns = min(-(-enough // _MULTIPLE) * _MULTIPLE, -(-(vectors.shape[1] + _EXTRA) // 2))
        self._basis = basis.flip(1)[:, : max(1, columns - _EXTRA)].contiguous()
        self._dtype = _product_dtype()
        self._blocks: list[Tensor] = []
        self._largest = self._largest_error = 0.0
        for part in torch.split(vectors, _COLUMNS):
            self._append(part)

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks."""
        return sum(block.numel() * block.element_size() for block in self._blocks)

    @property
    def query_bytes(self) -> int:
        """Memory that the bounds of one query take."""
        return len(self._blocks) * _COLUMNS * self._dtype.itemsize

    def nearest(self, queries: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (N,) of `vectors` nearest to queries (N, D), and which of them (N,) are found.

        A query is not found where too much of the bank would have to be compared. `vectors` (K, D) are those that the
        screen was made of.
        """
        rotated, length = self._rotate(queries)
        exact = torch.cat([rotated, torch.ones(len(queries), 2)], dim=1)
        rounded = exact.to(self._dtype)
        bounds = torch.empty(len(self._blocks), len(queries), _COLUMNS, dtype=self._dtype)
        lowest = []
        for block, out in zip(self._blocks, bounds, strict=True):
            torch.mm(rounded, block.T, out=out)
            lowest.append(out.view(len(queries), _GROUP, _GROUPS).amin(dim=1))  # a group: every 128th row of the block
        groups = torch.stack(lowest, dim=1).flatten(1)  # (N, blocks x 128)

        first = _argmin(groups)
        block, group = first.div(_GROUPS, rounding_mode="floor"), first % _GROUPS
        members = bounds.view(len(self._blocks), len(queries), _GROUP, _GROUPS)
        lane = _argmin(members[block, torch.arange(len(queries)), :, group])
        rows = block * _COLUMNS + lane * _GROUPS + group
        best = _squared(queries, vectors[rows])

        error = (exact[:, :-2] - rounded[:, :-2].float()).norm(dim=1)
        width = rounded[:, :-2].float().norm(dim=1)
        slack = 2 * (error * self._largest + width * self._largest_error)
        slack += _SLACK * (length.square() + self._largest**2)
        limit = _rounded_up(best - length.square() + slack, self._dtype)

        open_groups = groups <= limit[:, None]
        found = open_groups.sum(dim=1) <= max(8.0, _HOPELESS * groups.shape[1])
        query, place = (open_groups & found[:, None]).nonzero(as_tuple=True)
        for part in torch.split(torch.arange(len(query)), _PAIRS):
            self._compare(query[part], place[part], members, limit, queries, vectors, best, rows)
        return rows, found

    def _compare(
        self,
        query: Tensor,
        place: Tensor,
        members: Tensor,
        limit: Tensor,
        queries: Tensor,
        vectors: Tensor,
        best: Tensor,
        rows: Tensor,
    ) -> None:
        """Lower `best` and set `rows`, in place, by the rows of these groups whose bound is within the limit."""
        block, group = place.div(_GROUPS, rounding_mode="floor"), place % _GROUPS
        pair, lane = (members[block, query, :, group] <= limit[query, None]).nonzero(as_tuple=True)
        candidate = block[pair] * _COLUMNS + lane * _GROUPS + group[pair]
        asked = query[pair]
        for part in torch.split(torch.arange(len(asked)), _PAIRS):
            who, row = asked[part], candidate[part]
            squared = _squared(queries[who], vectors[row])
            lower = best.scatter_reduce(0, who, squared, "amin")
            won = (squared == lower[who]) & (squared < best[who])
            best.copy_(lower)
            rows[who[won]] = row[won]

    def _append(self, vectors: Tensor) -> None:
        """A block of at most 4096 rows; what it lacks is filled with rows at an infinite distance."""
        rotated, length = self._rotate(vectors)
        squared = length.square()
        high = squared.to(self._dtype)
        low = (squared - high.float()).to(self._dtype)
        rounded = (-2 * rotated).to(self._dtype)
        error = (rotated + rounded.float() / 2).norm(dim=1)
        self._largest = max(self._largest, float(length.max()))
        self._largest_error = max(self._largest_error, float(error.max()))
        block = torch.cat([rounded, high[:, None], low[:, None]], dim=1)
        self._blocks.append(F.pad(block, (0, 0, 0, _COLUMNS - len(block))))
        self._blocks[-1][len(vectors) :, -2] = torch.finfo(self._dtype).max

    def _rotate(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """x1 and |x2|, never too small, side by side (N, components + 1), and |x|, (N,), of x from the bank's mean."""
        centred = vectors - self._mean
        length = centred.norm(dim=1)
        leading = centred @ self._basis
        squared = length.square()
        rest = (squared - leading.square().sum(dim=1)).clamp_min_(0).add_(squared, alpha=_CANCELLED).sqrt_()
        return torch.cat([leading, rest[:, None]], dim=1), length


def _argmin(values: Tensor) -> Tensor:
    """Places (N,) of the smallest of each row; numpy's search is the vectorised one."""
    return torch.from_numpy(values.float().numpy().argmin(axis=1))


def _squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square_().sum(dim=1)


def _rounded_up(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` in `dtype`, none of them lowered."""
    if dtype == torch.float32:
        return values
    return (values + values.abs() * 2**-8).to(dtype)


@functools.cache
def _product_dtype() -> torch.dtype:
    """bfloat16 where this processor multiplies it faster than float32, which it may do four times as fast or not."""

    def seconds(dtype: torch.dtype) -> float:
        left, right = torch.ones(256, 128, dtype=dtype), torch.ones(2048, 128, dtype=dtype)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            torch.mm(left, right.T)
            times.append(time.perf_counter() - start)
        return min(times)

    return torch.bfloat16 if seconds(torch.bfloat16) < seconds(torch.float32) else torch.float32
