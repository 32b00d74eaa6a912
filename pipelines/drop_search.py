"""The largest pruning ratio whose detection loss stays within a limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from compress.errors import CompressError, RatioError

B = TypeVar("B")

# Ratios in hundredths: integers, so that a ratio is tried once and 0.15 is not 0.15000000000000002.
SCAN = (20, 40, 60, 80, 95)
STEPS = (5, 1)
_ROUNDING = 1e-9  # 0.95 - 0.94 is a little more than 0.01 in floating point
EVALUATIONS = 10  # always enough: 5 of the scan, 2 to a step of 0.05, 3 to a step of 0.01


class DropError(CompressError):
    """No ratio that was tried stays within the drop."""


@dataclass(frozen=True)
class Trial:
    """A ratio, and the score of what was cut by it; or None and why it could not be cut."""

    ratio: float
    score: float | None
    refusal: str = ""


@dataclass(frozen=True)
class DropSearch(Generic[B]):
    """What `largest_ratio_within_drop` found: the ratio, what was cut by it, and all trials in their order."""

    ratio: float
    best: B
    dense: float
    trials: tuple[Trial, ...]


def largest_ratio_within_drop(
    cut: Callable[[float], B],
    score: Callable[[B], float],
    *,
    dense: float,
    drop: float,
    evaluations: int = EVALUATIONS,
) -> DropSearch[B]:
    """The largest ratio in [0.01, 0.95] with dense - score(cut(ratio)) <= drop.

    Tries 0.2, 0.4, 0.6, 0.8, 0.95 up to the first violation, then halves the gap before it, on multiples of 0.05 and
    at last of 0.01. Scores need not fall strictly: the answer is the largest tried ratio below the first
    violation, so one lucky ratio beyond a violation is not taken. A ratio that `cut` refuses as too large
    (`RatioError`) counts as a violation, unless it is the first one tried: then it is the caller's to see, as all
    other errors are.

    Args:
        cut: makes a slim network; `score` judges it, larger is better (a validation AUROC).
        dense: the score of the network before the cut.
        drop: the largest loss allowed, in [0, 1).
        evaluations: how often to cut and judge at most; below 10 the answer may be coarser than 0.01.

    Raises:
        DropError: no ratio tried can meet the drop; the message names the smallest that one can.
        CompressError: a drop outside [0, 1), no evaluation, or scores that are not finite.
    """
    check_drop(drop)
    if evaluations < 1:
        raise CompressError(
            f"{evaluations} evaluations find nothing: allow at least 1, {EVALUATIONS} reach every ratio"
        )
    _check_finite(dense, "the dense network")
    trials: list[Trial] = []
    best: tuple[B, Trial] | None = None
    low, high = 0, SCAN[-1] + 1  # the largest ratio that holds, the smallest that does not
    while len(trials) < evaluations and (candidate := _next_candidate(low, high)) is not None:
        try:
            slim = cut(candidate / 100)
        except RatioError as error:
            if not trials:
                raise
            trials.append(Trial(candidate / 100, None, str(error)))
            high = candidate
            continue
        value = score(slim)
        _check_finite(value, f"ratio {candidate / 100}")
        trials.append(Trial(candidate / 100, value))
        if dense - value <= drop + _ROUNDING:
            low, best = candidate, (slim, trials[-1])
        else:
            high = candidate
    if best is None:
        raise _cannot_be_met(trials, dense, drop)
    slim, trial = best
    return DropSearch(trial.ratio, slim, dense, tuple(trials))


def check_drop(drop: float) -> None:
    """Raises CompressError for a drop of AUROC outside [0, 1)."""
    if not 0 <= drop < 1:
        raise CompressError(f"AUROC drop {drop} is outside [0, 1): 0.01 allows a loss of one hundredth")


def _next_candidate(low: int, high: int) -> int | None:
    """The hundredths to try between one that holds and one that does not; None where nothing is left."""
    if high > SCAN[-1]:  # no violation yet
        return next((candidate for candidate in SCAN if candidate > low), None)
    for step in STEPS:
        if high - low > step:
            return (low + high) // 2 // step * step
    return None


def _cannot_be_met(trials: list[Trial], dense: float, drop: float) -> DropError:
    loss, ratio = min((dense - trial.score, trial.ratio) for trial in trials if trial.score is not None)
    nearest = math.ceil((loss - _ROUNDING) * 1e4) / 1e4  # rounded up: what is named here can be met
    return DropError(
        f"AUROC drop {drop} cannot be met: of the {len(trials)} ratios tried down to {trials[-1].ratio}, {ratio} "
        f"loses least, {nearest:.4f} of {dense:.4f}; allow a drop of {nearest:.4f}, recover, longer if you did, or "
        "choose another method"
    )


def _check_finite(value: float, whose: str) -> None:
    if not math.isfinite(value):
        raise CompressError(f"the score of {whose} is {value}: it must be a number; is the backbone damaged?")
