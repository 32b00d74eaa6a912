"""The fewest layers, worst first, that must stay float until what int8 costs is within a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from compress.errors import CompressError

M = TypeVar("M")
_ROUNDING = 1e-9  # 0.95 - 0.94 is a little more than 0.01 in floating point


@dataclass(frozen=True)
class Limit(Generic[M]):
    """What int8 may cost: `loss(model)` at most `limit`. `title` is what messages call the loss."""

    title: str
    limit: float
    loss: Callable[[M], float]


@dataclass(frozen=True)
class FloatSearch(Generic[M]):
    """What `fewest_float` found: the model, how many layers it keeps float, and all trials (count, loss) in order."""

    best: M
    count: int
    trials: tuple[tuple[int, float], ...]


def fewest_float(most: int, keep: Callable[[int], M], limit: Limit[M]) -> FloatSearch[M]:
    """The fewest layers, 0 to `most`, with limit.loss(keep(count)) <= limit.limit.

    Tries 0, 1, 2, 4, 8 ... until one holds, then halves the gap before it. The loss need not fall strictly: the answer
    is the smallest count tried above the last violation.

    Args:
        keep: makes the model in which the first `count` layers of a ranking stay float.

    Raises:
        CompressError: no count tried holds, or a loss is not finite.
    """
    trials: list[tuple[int, float]] = []
    best: tuple[int, M] | None = None
    low, candidate = -1, 0
    while best is None or best[0] - low > 1:
        model = keep(candidate)
        loss = limit.loss(model)
        if not math.isfinite(loss):
            raise CompressError(f"the {limit.title} with {candidate} layers in float is {loss}: is the model damaged?")
        trials.append((candidate, loss))
        if loss <= limit.limit + _ROUNDING:
            best = (candidate, model)
        else:
            low = candidate
        if best is None:
            if candidate == most:
                raise _cannot_be_met(trials, limit)
            candidate = min(max(1, candidate * 2), most)
        else:
            candidate = (low + best[0]) // 2
    return FloatSearch(best[1], best[0], tuple(trials))


def _cannot_be_met(trials: Sequence[tuple[int, float]], limit: Limit[M]) -> CompressError:
    loss, count = min((loss, count) for count, loss in trials)
    nearest = math.ceil((loss - _ROUNDING) * 1e4) / 1e4  # rounded up: what is named here can be met
    return CompressError(
        f"a {limit.title} of {limit.limit:g} cannot be met: the least, {nearest:.4f}, comes with {count} layers in "
        f"float; allow {nearest:.4f}, calibrate on more images, or stay with float"
    )
