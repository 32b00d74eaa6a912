"""The coreset: the textbook algorithm's picks, by hand, by brute force, and as a property."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomaly import AnomalyError
from anomaly.coreset import coreset_size, covering_radius, greedy, greedy_coreset, random_projection


def textbook(features: Tensor, size: int, first: int) -> list[int]:
    """Sener and Savarese 2018, algorithm 1, in float64 and one pick per pass."""
    rows = features.double()
    picks = [first]
    nearest = (rows - rows[first]).norm(dim=1)
    for _ in range(size - 1):
        picks.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (rows - rows[picks[-1]]).norm(dim=1))
    return picks


def _cloud(rows: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    picks = greedy_coreset(line, 3, seed=0).indices.tolist()
    first = picks[0]
    expected = {0: [0, 3, 2], 1: [1, 3, 0], 2: [2, 3, 0], 3: [3, 0, 2]}  # ties go to the lower index
    assert picks == expected[first]


@pytest.mark.parametrize("pool", [1, 2, 16, 5000])
@pytest.mark.parametrize(("rows", "dimensions", "size"), [(500, 3, 200), (2000, 16, 300), (50, 2, 50)])
def test_the_pool_changes_no_pick(
    monkeypatch: pytest.MonkeyPatch, pool: int, rows: int, dimensions: int, size: int
) -> None:
    monkeypatch.setattr(greedy, "_POOL", pool)
    monkeypatch.setattr(greedy, "_BLOCK", 64)
    features = _cloud(rows, dimensions)
    picks = greedy_coreset(features, size, seed=1).indices.tolist()
    assert picks == textbook(features, size, picks[0])


def test_ties_go_to_the_lowest_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy, "_POOL", 3)
    grid = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0))
    picks = greedy_coreset(grid, 20, seed=0).indices.tolist()
    assert picks == textbook(grid, 20, picks[0])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 1000), st.data())
def test_no_row_is_farther_than_the_last_pick_was(rows: int, dimensions: int, seed: int, data: st.DataObject) -> None:
    """Greedy k-centre: the covering radius is at most the distance at which the last centre was taken."""
    features = _cloud(rows, dimensions, seed)
    size = data.draw(st.integers(1, rows))
    picks = greedy_coreset(features, size, seed=seed).indices
    assert len(set(picks.tolist())) == size
    radius = covering_radius(features, features[picks])
    if size > 1:
        earlier = (features[picks[:-1]] - features[picks[-1]]).norm(dim=1).min()
        assert radius <= float(earlier) + 1e-3
    if size == rows:
        assert radius < 1e-2


def test_the_seed_decides() -> None:
    features = _cloud(300, 4)
    assert torch.equal(greedy_coreset(features, 20, seed=1).indices, greedy_coreset(features, 20, seed=1).indices)
    assert greedy_coreset(features, 1, seed=1).indices != greedy_coreset(features, 1, seed=2).indices


def test_no_row_is_picked_twice_even_among_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy, "_POOL", 4)
    assert sorted(greedy_coreset(torch.ones(10, 3), 10).indices.tolist()) == list(range(10))
    assert len(set(greedy_coreset(torch.ones(10, 3), 5).indices.tolist())) == 5


@pytest.mark.parametrize("size", [0, 11])
def test_sizes_that_do_not_exist_are_refused(size: int) -> None:
    with pytest.raises(AnomalyError, match=f"coreset size {size} is outside 1 to 10"):
        greedy_coreset(torch.zeros(10, 2), size)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(AnomalyError, match="not finite"):
        greedy_coreset(torch.tensor([[0.0], [float("nan")]]), 1)


def test_a_ratio_that_keeps_nothing_says_what_to_do() -> None:
    assert coreset_size(784, 0.01) == 7
    with pytest.raises(AnomalyError, match=r"ratio 0\.01 of 50 patches keeps none: raise the ratio or add images"):
        coreset_size(50, 0.01)
    with pytest.raises(AnomalyError, match=r"outside \(0, 1\]"):
        coreset_size(50, 1.5)


def test_projection_holds_distances_on_average() -> None:
    features = _cloud(200, 400)
    projected = random_projection(features, 128, seed=0)
    ratio = torch.pdist(projected) / torch.pdist(features)
    assert projected.shape == (200, 128)
    assert abs(float(ratio.mean()) - 1) < 0.02
    assert random_projection(features, 400) is features
