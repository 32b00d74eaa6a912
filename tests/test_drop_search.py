"""The search for the largest ratio: on made-up scores, where the right answer is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from compress import CompressError
from compress.errors import RatioError
from pipelines.drop_search import EVALUATIONS, DropSearch, largest_ratio_within_drop


def _search(score: Callable[[float], float], drop: float, evaluations: int = EVALUATIONS) -> DropSearch[float]:
    return largest_ratio_within_drop(lambda ratio: ratio, score, dense=0.95, drop=drop, evaluations=evaluations)


def _falls_after(last: int) -> Callable[[float], float]:
    """0.95 up to `last` hundredths, 0.5 beyond."""
    return lambda ratio: 0.95 if round(ratio * 100) <= last else 0.5


def test_by_hand() -> None:
    found = _search(_falls_after(47), drop=0.01)
    assert found.ratio == found.best == 0.47
    assert [trial.ratio for trial in found.trials] == [0.2, 0.4, 0.6, 0.5, 0.45, 0.47, 0.48]
    assert [trial.score for trial in found.trials] == [0.95, 0.95, 0.5, 0.5, 0.95, 0.95, 0.5]


@pytest.mark.parametrize("last", range(1, 96))
def test_every_ratio_is_found_within_ten_evaluations(last: int) -> None:
    found = _search(_falls_after(last), drop=0.01)
    assert found.ratio == last / 100
    ratios = [trial.ratio for trial in found.trials]
    assert len(ratios) == len(set(ratios)) <= EVALUATIONS


@given(st.lists(st.floats(0, 1), min_size=96, max_size=96), st.floats(0, 0.99), st.integers(1, 12))
def test_whatever_the_scores_the_answer_holds_and_nothing_below_it_was_seen_to_fail(
    scores: list[float], drop: float, evaluations: int
) -> None:
    try:
        found = _search(lambda ratio: scores[round(ratio * 100)], drop, evaluations)
    except CompressError:  # 0.2 and all that were tried below it fail
        event("cannot be met")
        assert 0.95 - scores[20] > drop
        return
    scored = {trial.ratio: trial.score for trial in found.trials}
    assert len(found.trials) <= evaluations
    within = {ratio for ratio, score in scored.items() if score is not None and 0.95 - score <= drop + 1e-9}
    assert found.ratio == max(within)
    assert all(ratio > found.ratio for ratio in scored.keys() - within)


def test_a_lucky_ratio_beyond_a_violation_is_not_taken() -> None:
    assert _search(lambda ratio: 0.5 if 0.33 <= ratio <= 0.45 else 0.95, drop=0.01).ratio == 0.32


def test_few_evaluations_give_a_coarser_answer() -> None:
    assert _search(_falls_after(47), drop=0.01, evaluations=4).ratio == 0.4
    assert _search(_falls_after(47), drop=0.01, evaluations=1).ratio == 0.2


def test_a_loss_of_exactly_the_limit_is_allowed() -> None:
    assert _search(lambda ratio: 0.94, drop=0.01).ratio == 0.95


def test_a_drop_that_cannot_be_met_names_the_nearest_one_that_can() -> None:
    def score(ratio: float) -> float:
        return 0.95 - 0.0123 - ratio / 10

    with pytest.raises(CompressError, match=r"drop 0\.01 cannot be met: .*, 0\.01 loses least, 0\.0133 of 0\.9500"):
        _search(score, drop=0.01)
    assert _search(score, drop=0.0133).ratio == 0.01


def test_a_ratio_that_cannot_be_cut_bounds_the_search_and_keeps_its_reason() -> None:
    def cut(ratio: float) -> float:
        if ratio > 0.87:
            raise RatioError("leaves none of 8 channels")
        return ratio

    found = largest_ratio_within_drop(cut, lambda _: 0.95, dense=0.95, drop=0.0)
    assert found.ratio == 0.87
    assert next(trial.refusal for trial in found.trials if trial.score is None) == "leaves none of 8 channels"


def test_what_is_no_fault_of_the_ratio_ends_the_search() -> None:
    def cut(ratio: float) -> float:
        if ratio > 0.5:
            raise CompressError("no space left")
        return ratio

    with pytest.raises(CompressError, match="no space left"):
        largest_ratio_within_drop(cut, lambda _: 0.95, dense=0.95, drop=0.01)


def test_what_no_ratio_can_cut_is_the_callers_to_see() -> None:
    def cut(ratio: float) -> float:
        raise CompressError("no images")

    with pytest.raises(CompressError, match="no images"):
        largest_ratio_within_drop(cut, lambda _: 0.95, dense=0.95, drop=0.01)


@pytest.mark.parametrize("drop", [-0.01, 1.0, float("nan")])
def test_impossible_drops_are_refused(drop: float) -> None:
    with pytest.raises(CompressError, match=r"AUROC drop .* is outside \[0, 1\)"):
        _search(_falls_after(50), drop=drop)


def test_other_refusals() -> None:
    with pytest.raises(CompressError, match="0 evaluations find nothing"):
        _search(_falls_after(50), drop=0.01, evaluations=0)
    with pytest.raises(CompressError, match=r"the score of ratio 0\.2 is nan"):
        _search(lambda _: float("nan"), drop=0.01)
