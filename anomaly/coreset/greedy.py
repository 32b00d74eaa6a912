"""Greedy k-centre (Gonzalez 1985; PatchCore's coreset, Roth et al. 2022, algorithm 1), exact.

The picks are the textbook loop's. What is saved is work that cannot change a pick:

- A row's distance to its nearest centre only ever falls, so a stale value is an upper bound (Minoux 1978 calls
  such an algorithm lazy). A row meets new centres only while its bound keeps it among the farthest.
- The farthest rows, with exact distances, form a pool. As long as the farthest of the pool lies beyond the bounds
  of all other rows it is the next centre, and a pick costs a look at the pool alone.
- The others catch up on many centres at once, in one matrix product.

Distances in float32 as |x|^2 - 2 x.c + |c|^2 carry rounding errors. They are kept as upper bounds, raised by the
largest error there can be; where two rows come closer than that, both are measured again in float64. That error grows
with |x|^2, and distances do not depend on the origin, so x is the row less the mean of all rows: features that have
collapsed lie close together and far from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from anomaly.coreset.coreset import Coreset
from anomaly.coreset.distances import nearest_squared
from anomaly.coreset.request import check_coverage, check_size
from anomaly.coreset.rows import Rows, working_bytes
from anomaly.errors import AnomalyError
from anomaly.progress import Track, quiet

_POOL = 1024
_FETCH = 16  # times the pool: rows that catch up together
_CHUNK = 128  # centres that a row meets before it is asked whether it is still among the farthest
_BLOCK = 2048  # rows per matrix product, few enough for the processor's cache
_TAKEN = -math.inf  # below every bound: a centre is never picked again


def greedy_coreset(
    rows: Rows,
    size: int,
    *,
    coverage: float | None = None,
    seed: int = 0,
    memory: int | None = None,
    track: Track = quiet,
) -> Coreset:
    """Rows that cover all rows with a radius at most twice the smallest possible (Gonzalez 1985, theorem 2.2).

    The first centre is drawn from the seed; each next one is the row farthest from all centres so far,
    the lowest index among equals. A row that lies on a centre, to the precision of float32, counts as covered.

    Args:
        rows: (N, D) float32, a tensor on any device or what is read into one.
        size: how many rows, in [1, N].
        coverage: stop before that once every row lies within this distance of a centre, at least 0.
        memory: bytes that may be used; N (4 D + 64) and 4 D `size` are. None: as many as it takes.

    Raises:
        AnomalyError: size outside [1, N], a negative coverage, too little memory, or features that are not finite.
    """
    check_size(size, len(rows))
    check_coverage(coverage)
    needed = working_bytes(rows) + 4 * rows.shape[1] * size
    if memory is not None and needed > memory:
        raise AnomalyError(
            f"greedy needs {needed / 2**20:,.1f} MiB for {len(rows)} patches, and {memory / 2**20:,.1f} MiB of the "
            "memory are left for it: raise it or take the sampler two_level"
        )
    search = _Search(rows if isinstance(rows, Tensor) else rows[:], size, seed)
    for _ in track(search.picks(coverage), lambda: f"coreset, radius {search.radius:.4g}", size - 1):
        pass
    return Coreset(search.chosen[: search.count].cpu(), search.radius)


class _Search:
    """The centres so far, and an upper bound of every row's squared distance to the nearest of them.

    `upper` (N,) holds for the first `met` (N,) centres, and so for more. It is the distance that float32 gives and
    the largest error there can be; `_lower` takes that off again.
    """

    def __init__(self, features: Tensor, size: int, seed: int) -> None:
        rows, dimensions = features.shape
        self._features = features
        self._origin = features.mean(dim=0)  # taken off block by block: no second copy of all rows
        self._norms = torch.cat([(block - self._origin).square().sum(dim=1) for block in torch.split(features, _BLOCK)])
        if not torch.isfinite(self._norms).all():
            raise AnomalyError("the features hold values that are not finite: the backbone's weights are damaged")
        # Rounding of a sum of D products grows like sqrt(D): relative to |x|^2 + |c|^2, with a margin.
        self._rounding = torch.finfo(features.dtype).eps * (4 + math.sqrt(dimensions))
        self._padded = self._norms * (1 + self._rounding)
        self._upper = torch.full((rows,), math.inf, device=features.device)
        self._met = torch.zeros(rows, dtype=torch.int32, device=features.device)
        self._gathered = features.new_empty(min(_BLOCK, rows), dimensions)
        self._centres = features.new_empty(size, dimensions)
        self._centre_norms = features.new_empty(size)
        self.chosen = torch.empty(size, dtype=torch.int64, device=features.device)
        self.count = 0
        self.radius = math.inf  # of the centres before the last one
        generator = torch.Generator().manual_seed(seed)
        self._take(int(torch.randint(rows, (1,), generator=generator)))
        self._catch_up(torch.arange(rows, device=features.device), level=_TAKEN)

    def picks(self, coverage: float | None) -> Iterator[None]:
        """Take centre after centre. `radius` is what it was when the next one was looked for."""
        pool, limit = self._farthest()
        features, padded, norms, upper = self._gather(pool)
        while True:
            place, low, second = self._top(upper, norms)
            if not low > limit:  # equality counts as doubt: a row outside with a lower index may be as far
                pool, limit = self._farthest()
                features, padded, norms, upper = self._gather(pool)
                place, low, second = self._top(upper, norms)
            self.radius = math.sqrt(max(low, 0.0))
            if self.count == len(self.chosen) or (coverage is not None and self.radius <= coverage):
                return
            if low <= 0:  # every row lies on a centre
                rest = (self._upper > _TAKEN).nonzero()[:, 0][: len(self.chosen) - self.count]
                self.chosen[self.count : self.count + len(rest)] = rest
                self.count += len(rest)
                return
            if second >= low:
                near = (upper >= low).nonzero()[:, 0]
                place = int(near[self._measured(pool[near]).argmax()])
            self._take(int(pool[place]))
            centre = torch.addmv(padded, features, features[place], alpha=-2).add_(self._centre_norms[self.count - 1])
            torch.minimum(upper, centre, out=upper)
            upper[place] = _TAKEN
            yield

    def _take(self, row: int) -> None:
        self.chosen[self.count] = row
        self._centres[self.count] = self._features[row] - self._origin
        self._centre_norms[self.count] = self._padded[row]
        self._upper[row] = _TAKEN
        self.count += 1

    def _gather(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._features[rows].sub_(self._origin), self._padded[rows], self._norms[rows], self._upper[rows]

    def _top(self, upper: Tensor, norms: Tensor) -> tuple[int, float, float]:
        """The place of the largest bound, the least that this row's distance can be, and the second largest bound."""
        values, places = upper.topk(min(2, len(upper)))
        first, *others = values.tolist()
        place = int(places[0])
        if first == _TAKEN:  # every row is a centre
            return place, _TAKEN, _TAKEN
        # A centre at distance d of x has |c|^2 <= 2 |x|^2 + 2 d^2.
        low = first - 2 * self._rounding * (3 * float(norms[place]) + 2 * first)
        return place, low, others[0] if others else _TAKEN

    def _farthest(self) -> tuple[Tensor, float]:
        """Rows with exact distances, ascending, and a bound on all others that lies below the farthest of them."""
        width = _POOL
        while True:
            bounds, rows = self._upper.topk(min(_FETCH * width + 1, len(self._upper)))
            stale = self._met[rows] < self.count
            if stale[:width].any():
                self._catch_up(rows[stale].sort().values, level=float(bounds[-1]))
                continue
            limit = float(bounds[width]) if width < len(rows) else _TAKEN
            if self._top(bounds[:1], self._norms[rows[:1]])[1] > limit or width >= len(rows):
                return rows[:width].sort().values, limit
            width *= 4  # more rows than the pool holds are as far, to the precision of float32

    def _catch_up(self, rows: Tensor, level: float) -> None:
        """Let rows, ascending, meet all centres they have not met, but no more once their bound is below `level`."""
        while len(rows):
            since = self._met[rows]
            for start in torch.unique(since).tolist():
                stop = min(self.count, (start // _CHUNK + 1) * _CHUNK)  # common stops: few groups, large products
                group = rows[since == start]
                for block in torch.split(group, _BLOCK):
                    gathered = torch.index_select(self._features, 0, block, out=self._gathered[: len(block)])
                    nearest = nearest_squared(
                        gathered.sub_(self._origin),
                        self._padded[block],
                        self._centres[start:stop],
                        self._centre_norms[start:stop],
                    )
                    self._upper[block] = torch.minimum(self._upper[block], nearest)
                self._met[group] = stop
            rows = rows[(self._met[rows] < self.count) & (self._upper[rows] >= level)]

    def _measured(self, rows: Tensor) -> Tensor:
        """Squared distances (R,) of rows to their nearest centre in float64, as sums of squared differences."""
        centres, norms = self._centres[: self.count], self._centre_norms[: self.count]
        found = torch.full((len(rows),), math.inf, dtype=torch.float64, device=rows.device)
        for places in torch.split(torch.arange(len(rows), device=rows.device), _BLOCK):
            block = rows[places]
            gathered = self._features[block].sub_(self._origin)
            bounds = torch.addmm(norms, gathered, centres.T, alpha=-2).add_(self._padded[block, None])
            nearest = bounds.amin(dim=1, keepdim=True)
            doubt = 2 * self._rounding * (3 * self._norms[block, None] + 2 * nearest)
            row, centre = (bounds <= nearest + doubt).nonzero(as_tuple=True)
            chosen = self.chosen[: self.count][centre]
            differences = self._features[block[row]].double() - self._features[chosen].double()
            found.scatter_reduce_(0, places[row], differences.square_().sum(dim=1), "amin")
        return found
