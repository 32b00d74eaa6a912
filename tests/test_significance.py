"""The paired bootstrap: by hand, against DeLong's variance, and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from reports import ReportError, significance
from reports.significance import BLOCK, Paired, _draws, auroc, paired_difference


def drawn(good: int, defective: int, *, shift: float, seed: int = 0) -> Paired:
    """Two detectors that look at the same things: the second sees defects `shift` deviations clearer."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([False, True], [good, defective])
    seen = rng.normal(size=good + defective) + 1.2 * labels
    first, second = (seen + rng.normal(scale=0.5, size=len(labels)) + extra * labels for extra in (0.0, shift))
    return Paired(labels, first[None], second[None])


def delong(pair: Paired) -> tuple[float, float]:
    """Difference and its standard error by DeLong, DeLong & Clarke-Pearson (1988), one pair of images at a time."""
    placements = []
    for scores in (pair.first[0], pair.second[0]):
        good, defective = scores[~pair.labels], scores[pair.labels]
        wins = (defective[:, None] > good).astype(float) + 0.5 * (defective[:, None] == good)
        placements.append((wins.mean(axis=1), wins.mean(axis=0)))
    of_defective, of_good = (np.cov([kind[0], kind[1]]) for kind in zip(*placements, strict=True))
    variance: NDArray[np.float64] = of_defective / pair.labels.sum() + of_good / (~pair.labels).sum()
    error = float(np.sqrt(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1]))
    return float(placements[1][0].mean() - placements[0][0].mean()), error


def test_auroc_equals_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = np.append(rng.random(40) < 0.4, [True, False])
        scores = rng.integers(0, 6, len(labels)).astype(float)
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8])
def test_the_interval_is_that_of_delong(shift: float) -> None:
    pair = drawn(191, 392, shift=shift)
    found = paired_difference([pair])
    difference, error = delong(pair)
    assert found.value == pytest.approx(difference, abs=1e-12)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.1)
    assert (found.low + found.high) / 2 == pytest.approx(difference, abs=0.3 * error)
    assert found.tie == (shift == 0.0)
    assert found.images == 583


def test_equals_tie_as_often_as_the_interval_promises() -> None:
    won = sum(not paired_difference([drawn(40, 60, shift=0.0, seed=s)], resamples=400).tie for s in range(200))
    assert 2 <= won <= 22  # 5 % of 200 are 10; beyond these bounds less than once in a thousand


def test_one_detector_against_itself_is_a_tie_of_width_zero() -> None:
    pair = drawn(20, 30, shift=0.0)
    same = paired_difference([Paired(pair.labels, pair.first, pair.first)])
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert same.tie


def test_turned_round_it_is_the_opposite() -> None:
    pair = drawn(30, 50, shift=0.5)
    there, back = paired_difference([pair]), paired_difference([Paired(pair.labels, pair.second, pair.first)])
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert back.p == there.p


def test_runs_are_averaged_and_categories_weigh_the_same() -> None:
    # category one: 0.5 -> 1.0 by hand; category two: (1.0 + 0.0) / 2 -> 1.0; so 0.5 -> 1.0 over both
    labels = np.array([False, False, True, True])
    right, wrong, flat = np.array([0.0, 1, 2, 3]), np.array([3.0, 2, 1, 0]), np.zeros(4)
    pairs = [Paired(labels, flat[None], right[None]), Paired(labels, np.stack([right, wrong]), right[None])]
    found = paired_difference(pairs, resamples=50)
    assert (found.first, found.second, found.images) == (0.5, 1.0, 8)
    assert found.low == found.high == 0.5  # whatever is drawn, nothing changes


def test_the_seed_alone_decides() -> None:
    pair = drawn(30, 40, shift=0.2)
    assert paired_difference([pair], seed=1) == paired_difference([pair], seed=1)
    assert paired_difference([pair], seed=1) != paired_difference([pair], seed=2)


def test_resamples_are_drawn_in_blocks_each_with_numbers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_at_once: list[tuple[object, ...]] = []

    def noted(count: int, resamples: int, *stream: int) -> NDArray[np.int64]:
        drawn_at_once.append((count, resamples, stream))
        return _draws(count, resamples, *stream)

    monkeypatch.setattr("reports.significance._draws", noted)
    found = paired_difference([drawn(30, 40, shift=0.2)], resamples=2 * BLOCK + 5)
    # Each of the two detectors asks for the same.
    assert [size for count, size, _ in drawn_at_once if count == 30] == [BLOCK] * 4 + [5] * 2
    assert len(set(drawn_at_once)) == 6
    assert found.low < found.value < found.high
    assert (_draws(30, BLOCK, 0, 0, 0) != _draws(30, BLOCK, 0, 0, 1)).any()


def test_a_run_that_meets_several_others_is_resampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, others = drawn(30, 40, shift=0.2), [drawn(30, 40, shift=shift) for shift in (0.1, 0.3, 0.4)]
    whole = [Paired(first.labels, first.first, other.second) for other in others]
    apart = [paired_difference([pair]) for pair in whole]
    significance._resampled.cache_clear()
    computed = []
    aurocs = significance._aurocs
    monkeypatch.setattr(significance, "_aurocs", lambda *given: computed.append(len(given[2])) or aurocs(*given))
    assert [paired_difference([pair]) for pair in whole] == apart
    assert computed.count(BLOCK) == 2 * 4  # two blocks of four runs, of which one is in all three pairs


def test_p_is_the_interval_inverted() -> None:
    pair = drawn(30, 40, shift=0.35, seed=3)
    found = paired_difference([pair], resamples=999)
    assert (found.p < 0.05) == (not found.tie)
    labels = np.repeat([False, True], 5)
    sure = paired_difference([Paired(labels, -1.0 * labels[None], 1.0 * labels[None])], resamples=999)
    assert sure.p == 2 / 1000


def test_what_cannot_be_compared_is_refused() -> None:
    labels = np.array([False, True])
    with pytest.raises(ReportError, match="0 categories"):
        paired_difference([])
    with pytest.raises(ReportError, match="give \\(runs, images\\)"):
        Paired(labels, np.zeros((1, 3)), np.zeros((1, 2)))
    with pytest.raises(ReportError, match="one kind is missing"):
        Paired(np.array([True, True]), np.zeros((1, 2)), np.zeros((1, 2)))
