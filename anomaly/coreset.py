"""Greedy k-centre coreset (Roth et al. 2022, algorithm 1; Sener and Savarese 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from anomaly.errors import AnomalyError
from anomaly.progress import Track, quiet

PROJECTION = 128
_POOL = 4096
_BLOCK = 1 << 16
_TAKEN = -1.0  # below every distance: a centre is never picked again, though a twin or rounding leaves all at 0


def check_bank_request(ratio: float, size: int | None) -> None:
    """Refuse, before any work, what no memory bank can be made by.

    Raises:
        AnomalyError: a ratio outside (0, 1], or a size below 1.
    """
    if not 0 < ratio <= 1:
        raise AnomalyError(f"coreset ratio {ratio} is outside (0, 1]: 0.01 keeps one patch in a hundred")
    if size is not None and size < 1:
        raise AnomalyError(f"bank size {size} is below 1: 1000 patches make a small bank")


def coreset_size(patches: int, ratio: float) -> int:
    """How many of `patches` a coreset of `ratio` keeps.

    Raises:
        AnomalyError: a ratio outside (0, 1], or one that keeps none.
    """
    check_bank_request(ratio, None)
    size = int(patches * ratio)
    if size < 1:
        raise AnomalyError(f"coreset ratio {ratio} of {patches} patches keeps none: raise the ratio or add images")
    return size


def random_projection(features: Tensor, dimensions: int = PROJECTION, *, seed: int = 0) -> Tensor:
    """Features (N, D) on `dimensions` Gaussian directions, scaled so that distances hold on average.

    Johnson and Lindenstrauss 1984. Features of no more dimensions than asked for come back as they are.
    """
    if features.shape[1] <= dimensions:
        return features
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(features.shape[1], dimensions, generator=generator) / dimensions**0.5
    projected: Tensor = features @ directions.to(features.device)
    return projected


def greedy_coreset(features: Tensor, size: int, *, seed: int = 0, track: Track = quiet) -> Tensor:
    """Indices of `size` rows that cover all rows with a small radius, in the order of their choice.

    The first centre is drawn from the seed; each next one is the row farthest from all centres so far,
    the lowest index among equals. The picks are those of the textbook algorithm (float rounding at
    near ties aside), but most cost a look at a small pool and not at all rows: a row's distance to the
    nearest centre only ever falls, so one that was computed a while ago is an upper bound. As long as
    the farthest row of the pool, kept exact, lies beyond the bounds of all the others, it is the
    farthest of all. When it does not, the other rows catch up on all new centres in one matrix product.

    Args:
        features: (N, D) float tensor.
        size: how many rows, in [1, N].

    Returns:
        (size,) int64 indices, all different.

    Raises:
        AnomalyError: size outside [1, N], or features that are not finite.
    """
    rows = len(features)
    if not 1 <= size <= rows:
        raise AnomalyError(f"coreset size {size} is outside 1 to {rows}, the number of patches")
    norms = features.square().sum(dim=1)
    if not torch.isfinite(norms).all():
        raise AnomalyError("the features hold values that are not finite: the backbone's weights are damaged")
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(rows, (1,), generator=generator))

    bound = torch.full((rows,), torch.inf, device=features.device)  # squared distance to the nearest centre
    picks = [first]
    pending = [first]  # centres that the rows outside the pool have not met yet
    pool = pool_features = pool_norms = torch.empty(0)
    exact = torch.empty(0)
    limit = torch.tensor(torch.inf)
    for _ in track(range(size - 1), "coreset", size - 1):
        if len(pool):
            _meet(exact, pool_features, pool_norms, features[pending[-1:]], norms[pending[-1:]])
            exact[pool == pending[-1]] = _TAKEN
        # Equality counts as doubt: a row outside with a lower index may be as far.
        if not len(pool) or not exact.max() > limit:
            for start in range(0, rows, _BLOCK):
                block = slice(start, start + _BLOCK)
                _meet(bound[block], features[block], norms[block], features[pending], norms[pending])
            bound[picks] = _TAKEN
            pending = []
            bounds, pool = torch.topk(bound, min(_POOL, rows), sorted=True)
            pool = pool.sort().values
            # No row outside the pool is farther than its nearest row; none is outside a pool of all rows.
            limit = bounds[-1] if len(pool) < rows else torch.tensor(-torch.inf)
            pool_features, pool_norms, exact = features[pool], norms[pool], bound[pool]
            pick = int(bound.argmax())
        else:
            pick = int(pool[exact.argmax()])
        picks.append(pick)
        pending.append(pick)
    return torch.tensor(picks)


def covering_radius(features: Tensor, centres: Tensor) -> float:
    """Largest distance of any row of `features` (N, D) to its nearest row among `centres` (K, D)."""
    norms = features.square().sum(dim=1)
    nearest = torch.full((len(features),), torch.inf, device=features.device)
    for start in range(0, len(features), _BLOCK):
        block = slice(start, start + _BLOCK)
        _meet(nearest[block], features[block], norms[block], centres, centres.square().sum(dim=1))
    return float(nearest.max().sqrt())


def _meet(bound: Tensor, rows: Tensor, row_norms: Tensor, centres: Tensor, centre_norms: Tensor) -> None:
    """Lower `bound` (N,), in place, to the squared distances |x|^2 - 2 x.c + |c|^2 of `rows` to new `centres`."""
    nearest = torch.addmm(centre_norms, rows, centres.T, alpha=-2).amin(dim=1)
    torch.minimum(bound, nearest.add_(row_norms).clamp_min_(0), out=bound)
