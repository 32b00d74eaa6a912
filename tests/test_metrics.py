"""Metrics: by hand, against scikit-learn, against a slow AUPRO, and as properties."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import label
from sklearn.metrics import precision_recall_curve, roc_auc_score

from anomaly import AnomalyError, Metrics, aupro, auroc, evaluate_scores, f1_max

GENERATOR = np.random.default_rng(0)


def _two_sided(values: NDArray[np.bool_]) -> bool:
    return bool(values.any() and not values.all())


LABELS_AND_SCORES = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(bool, n).filter(_two_sided),
        # few distinct values, so that ties abound
        hnp.arrays(np.float64, n, elements=st.integers(0, 8).map(float)),
    )
)


@settings(deadline=None, max_examples=200)
@given(LABELS_AND_SCORES)
def test_auroc_and_f1_equal_scikit_learns(given_values: tuple[NDArray[np.bool_], NDArray[np.float64]]) -> None:
    labels, scores = given_values
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert f1_max(labels, scores) == pytest.approx(f1.max(), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(LABELS_AND_SCORES)
def test_only_the_order_of_scores_matters(given_values: tuple[NDArray[np.bool_], NDArray[np.float64]]) -> None:
    labels, scores = given_values
    assert auroc(labels, np.exp(scores)) == auroc(labels, scores)
    assert auroc(~labels, -scores) == pytest.approx(auroc(labels, scores))
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores))


def slow_aupro(masks: NDArray[np.bool_], maps: NDArray[np.float64], limit: float) -> float:
    """Bergmann et al. 2021, one threshold and one region at a time."""
    regions = []
    for image, mask in enumerate(masks):
        components, count = label(mask, structure=np.ones((3, 3)))
        regions += [(image, components == index) for index in range(1, count + 1)]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        hit = maps >= threshold
        fpr.append(float((hit & ~masks).sum() / (~masks).sum()))
        pro.append(float(np.mean([(hit[image] & region).sum() / region.sum() for image, region in regions])))
    fine = np.linspace(0, limit, 200_001)
    return float(np.trapezoid(np.interp(fine, fpr, pro), fine) / limit)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_equals_the_slow_one(seed: int, limit: float) -> None:
    generator = np.random.default_rng(seed)
    masks = np.zeros((4, 16, 16), dtype=bool)
    masks[0, 2:5, 3:9] = masks[0, 10:12, 10:12] = masks[1, 4, 4] = masks[3, 0:8, 0:2] = True
    # distinct scores: with ties at FPR 0 the slow one's interpolation has no single answer
    maps = generator.permutation(masks.size).reshape(masks.shape) + 200.0 * masks
    assert aupro(masks, maps, fpr_limit=limit) == pytest.approx(slow_aupro(masks, maps, limit), abs=1e-4)


def test_aupro_by_hand() -> None:
    masks = np.array([[[True, False, False, True, True]]])
    maps = np.array([[[5.0, 4.0, 1.0, 3.0, 2.0]]])
    # thresholds 5, 4, 3, 2, 1: FPR 0, .5, .5, .5, 1 and overlap .5, .5, .75, 1, 1; area up to FPR 1 = .25 + .5
    assert aupro(masks, maps, fpr_limit=1.0) == pytest.approx(0.75)


def test_small_regions_weigh_as_much_as_large_ones() -> None:
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, :4, :4] = masks[0, 7, 7] = True
    found_large, found_small = (np.where(masks, -1.0, 0.0) for _ in range(2))
    found_large[0, :4, :4] = 1
    found_small[0, 7, 7] = 1
    assert aupro(masks, found_large) == pytest.approx(aupro(masks, found_small)) == pytest.approx(0.5)


def test_perfect_and_reversed_detection() -> None:
    masks = np.zeros((2, 6, 6), dtype=bool)
    masks[0, :2, :2] = True
    labels = np.array([True, False])
    best = evaluate_scores(labels, np.array([2.0, 1.0]), masks, masks.astype(float))
    assert best == Metrics(1.0, 1.0, 1.0, 1.0, 1.0)
    worst = evaluate_scores(labels, np.array([1.0, 2.0]), masks, -masks.astype(float))
    assert (worst.image_auroc, worst.pixel_auroc, worst.aupro) == (0.0, 0.0, 0.0)


def test_what_is_not_defined_is_none_and_never_zero() -> None:
    good = np.array([False, False])
    scores = np.array([1.0, 2.0])
    maps = np.zeros((2, 4, 4))
    assert evaluate_scores(good, scores) == Metrics(None, None, None, None, None)
    assert evaluate_scores(good, scores, np.zeros((2, 4, 4), bool), maps) == Metrics(None, None, None, None, None)
    without_masks = evaluate_scores(np.array([False, True]), scores)
    assert without_masks == Metrics(1.0, 1.0, None, None, None)


@pytest.mark.parametrize("metric", [auroc, f1_max])
def test_one_class_alone_is_refused(metric: object) -> None:
    with pytest.raises(AnomalyError, match="none is defective"):
        metric(np.array([False]), np.array([1.0]))  # type: ignore[operator]


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(AnomalyError, match="not finite"):
        auroc(np.array([True, False]), np.array([np.nan, 1.0]))


def test_large_float32_maps_lose_no_precision() -> None:
    maps = GENERATOR.random((8, 224, 224), dtype=np.float32)
    masks = maps + GENERATOR.random(maps.shape) > 1.2
    assert auroc(masks, maps) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-9)


def _maps_with_regions(side: int, images: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    generator = np.random.default_rng(1)
    maps = generator.random((images, side, side), dtype=np.float32).round(3)  # ties abound
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, 2:7, 3:9] = masks[1, -4:, :2] = masks[1, 1, 1] = True
    return masks, maps + 0.3 * masks


def test_blocks_change_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, maps = _maps_with_regions(24, 3)
    labels, scores = np.array([True, True, False]), np.array([2.0, 1.0, 1.5])
    whole = evaluate_scores(labels, scores, masks, maps)
    monkeypatch.setattr("anomaly.metrics._BLOCK", 7)
    assert evaluate_scores(labels, scores, masks, maps) == whole
    assert whole.pixel_auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)


def test_pixel_metrics_hold_no_second_copy_of_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly.metrics._BLOCK", 1 << 18)
    masks, maps = _maps_with_regions(1024, 6)
    tracemalloc.start()
    try:
        evaluate_scores(np.array([True] * 2 + [False] * 4), np.arange(6.0), masks, maps)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < maps.nbytes / 1.5  # the components of one image and a block, not 25 MB of maps
