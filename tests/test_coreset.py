"""The coreset: the textbook algorithm's picks, by hand, by brute force, and as a property."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomaly import AnomalyError
from anomaly.coreset import (
    SAMPLERS,
    Coreset,
    ProjectedRows,
    coreset_size,
    covering_radius,
    distances_to,
    find_sampler,
    greedy,
    greedy_coreset,
    random_directions,
    random_projection,
    two_level,
    two_level_coreset,
)
from anomaly.progress import quiet


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


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("sample", [greedy_coreset, two_level_coreset])
def test_a_coreset_of_all_rows_has_radius_0(sample: Callable[[Tensor, int], Coreset], rows: int) -> None:
    assert sample(_cloud(rows, 4), rows).radius == 0


def test_a_sampler_that_keeps_all_is_not_asked_how_many() -> None:
    assert find_sampler("greedy", size=40).counts
    with pytest.raises(AnomalyError, match="sampler full keeps every patch, not 40: drop the bank size"):
        find_sampler("full", size=40)


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


@settings(deadline=None, max_examples=80)
@given(st.integers(2, 80), st.integers(1, 4), st.integers(1, 4), st.integers(1, 200), st.integers(0, 99), st.data())
def test_lattices_full_of_ties_and_twins_give_the_textbook_picks(
    rows: int, dimensions: int, side: int, pool: int, seed: int, data: st.DataObject
) -> None:
    """Points of a small lattice: most distances are equal, many rows are twins. The textbook's indices still."""
    lattice = torch.randint(0, side + 1, (rows, dimensions), generator=torch.Generator().manual_seed(seed)).float()
    distinct = len(lattice.unique(dim=0))
    size = data.draw(st.integers(1, distinct))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(greedy, "_POOL", pool)
        patch.setattr(greedy, "_CHUNK", 3)
        patch.setattr(greedy, "_BLOCK", 16)
        picks = greedy_coreset(lattice / 7 + 5, size, seed=seed).indices.tolist()
    assert picks == textbook(lattice / 7 + 5, size, picks[0])


def test_near_ties_are_decided_by_the_true_distance() -> None:
    """Two rows whose distances differ by less than float32 can tell after |x|^2 - 2 x.c + |c|^2 far from the origin."""
    far = 300.0
    rows = torch.tensor([[far, 0.0], [far, 1.0], [far + 1.0001, 0.0]])
    seed = next(seed for seed in range(50) if int(greedy_coreset(rows, 1, seed=seed).indices) == 0)
    norms = rows.square().sum(dim=1)
    expanded = norms - 2 * rows @ rows[0] + norms[0]
    assert expanded.argmax() != 2  # float32 alone goes wrong here
    assert greedy_coreset(rows, 2, seed=seed).indices.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("dimensions", "scale", "shift"), [(1, 1.0, 0.0), (8, 0.01, 5.0), (128, 1.0, 3.0), (2048, 0.3, 3.0)]
)
def test_bounds_hold_and_are_not_far(dimensions: int, scale: float, shift: float) -> None:
    """`_lower` <= true squared distance <= `_upper`, for values that cancel badly."""
    features = _cloud(1500, dimensions) * scale + shift
    search = greedy._Search(features, 300, seed=0)
    for _ in search.picks(None):
        pass
    centres = features[search.chosen].double()
    true = torch.cdist(features.double(), centres, compute_mode="donot_use_mm_for_euclid_dist").square()
    for row in (search._met == 300).nonzero()[:, 0].tolist():
        upper = search._upper[row : row + 1]
        if upper > -torch.inf:
            _, low, _ = search._top(upper, search._norms[row : row + 1])
            assert low <= true[row].min() <= float(upper)


def test_features_that_have_collapsed_are_told_apart_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close together and far from the origin: with |x|^2 of 1e6, every pair would be measured again in float64."""
    features = _cloud(3000, 8) * 0.01 + 300.0
    measured = []
    in_float64 = greedy._Search._measured
    monkeypatch.setattr(
        greedy._Search, "_measured", lambda self, rows: measured.append(len(rows)) or in_float64(self, rows)
    )
    picks = greedy_coreset(features, 100, seed=0).indices.tolist()
    assert picks == textbook(features, 100, picks[0])
    assert sum(measured) <= 20


@pytest.mark.parametrize("far", [0.0, 30.0, 300.0])
def test_the_covering_radius_does_not_depend_on_the_origin(far: float) -> None:
    features = _cloud(3000, 8) * 0.01 + far
    chosen = greedy_coreset(features, 100, seed=0)
    true = torch.cdist(features.double(), features[chosen.indices].double()).amin(dim=1).max()
    assert covering_radius(features, features[chosen.indices]) == pytest.approx(float(true), rel=1e-3)


def test_an_outlier_does_not_hide_the_distances_of_the_others() -> None:
    rows = torch.cat([_cloud(200, 4), torch.full((1, 4), 1e5)])
    picks = greedy_coreset(rows, 30, seed=3).indices.tolist()
    assert picks == textbook(rows, 30, picks[0])


def test_the_radius_falls_and_is_the_covering_radius() -> None:
    features = _cloud(3000, 8)
    told = []

    def track(steps, description, total):  # type: ignore[no-untyped-def]
        for step in steps:
            told.append(float(description().removeprefix("coreset, radius ")))
            yield step

    found = greedy_coreset(features, 200, seed=0, track=track)
    assert len(told) == 199
    assert told == sorted(told, reverse=True)
    assert found.radius == pytest.approx(covering_radius(features, features[found.indices]), rel=1e-3)
    assert found.radius <= told[-1]


def test_it_stops_at_the_coverage_and_not_before() -> None:
    features = _cloud(2000, 6)
    whole = greedy_coreset(features, 500, seed=0)
    found = greedy_coreset(features, 500, seed=0, coverage=1.5)
    assert torch.equal(found.indices, whole.indices[: len(found.indices)])
    assert found.radius <= 1.5 < greedy_coreset(features, len(found.indices) - 1, seed=0).radius
    assert len(greedy_coreset(features, 500, coverage=100.0).indices) == 1
    assert len(greedy_coreset(features, 50, coverage=0.0).indices) == 50
    with pytest.raises(AnomalyError, match=r"coverage -1\.0 is below 0"):
        greedy_coreset(features, 5, coverage=-1.0)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(0, 1000), st.integers(2, 5))
def test_two_levels_keep_their_bounds(size: int, seed: int, parts: int) -> None:
    """The radius that comes back holds, and is within 4 times the best: greedy's is at most twice the best."""
    features = _cloud(90, 2, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_level, "_PART", -(-90 // parts))
        found = two_level_coreset(features, size, seed=seed)
    assert len(set(found.indices.tolist())) == size
    true_radius = covering_radius(features, features[found.indices])
    assert true_radius <= found.radius + 1e-3
    # size + 1 centres of greedy are at least its radius apart: no `size` centres have less than half of it.
    least = greedy_coreset(features, size, seed=seed).radius / 2
    assert true_radius >= least - 1e-3
    pairwise = torch.pdist(features).max() if size == 1 else None
    best_known = min(greedy_coreset(features, size, seed=other).radius for other in range(5))
    assert true_radius <= 4 * best_known + 1e-3
    assert pairwise is None or true_radius <= pairwise + 1e-3


class _Counted:
    """Rows that remember how much of them was held at once."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.largest, self.read = rows, 0, 0
        self.shape = tuple(rows.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, stretch: slice, /) -> Tensor:
        part = self.rows[stretch]
        self.largest = max(self.largest, len(part))
        self.read += len(part)
        return part


@pytest.mark.parametrize("memory", [200_000, 100_000, 60_000])
def test_two_levels_stay_within_their_memory(memory: int) -> None:
    rows = _Counted(_cloud(4000, 16))
    found = two_level_coreset(rows, 20, memory=memory)
    assert len(found.indices) == 20
    assert rows.largest * (4 * 16 + 64) <= memory
    assert rows.largest >= memory / (4 * 16 + 64) / 4  # it uses what it is given
    assert rows.read == 4000  # each row once


def test_too_little_memory_is_refused_with_the_cure() -> None:
    with pytest.raises(AnomalyError, match=r"greedy needs .* take the sampler two_level"):
        greedy_coreset(_cloud(4000, 16), 20, memory=100_000)
    with pytest.raises(AnomalyError, match=r"two_level needs .* lower the bank size"):
        two_level_coreset(_cloud(4000, 16), 1000, memory=100_000)


def test_two_levels_of_one_part_are_greedy() -> None:
    features = _cloud(500, 4)
    assert torch.equal(two_level_coreset(features, 30).indices, greedy_coreset(features, 30).indices)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler(name: str) -> None:
    features = _cloud(600, 5)
    sample = SAMPLERS[name].sample
    first, again = (sample(features, 40, coverage=None, seed=2, memory=None, track=quiet) for _ in range(2))
    assert torch.equal(first.indices, again.indices)
    assert first.indices.dtype == torch.int64
    assert len(set(first.indices.tolist())) == len(first.indices) == (600 if name == "full" else 40)
    if SAMPLERS[name].covers:
        assert covering_radius(features, features[first.indices]) <= first.radius + 1e-3
        assert len(sample(features, 40, coverage=9.0, seed=2, memory=None, track=quiet).indices) < 40
    else:
        with pytest.raises(AnomalyError, match=f"sampler {name} knows no covering radius"):
            find_sampler(name, coverage=1.0)


def test_a_sampler_that_does_not_exist_is_refused_with_the_near_ones() -> None:
    with pytest.raises(AnomalyError, match="no sampler 'gredy': did you mean greedy"):
        find_sampler("gredy")


def test_greedy_covers_better_than_random() -> None:
    features = _cloud(2000, 6)
    random = find_sampler("random").sample(features, 50, coverage=None, seed=0, memory=None, track=quiet)
    assert greedy_coreset(features, 50).radius < covering_radius(features, features[random.indices])


def test_distances_and_projected_rows_equal_the_whole_product() -> None:
    features, centres = _cloud(300, 200), _cloud(7, 200, seed=1)
    assert torch.allclose(distances_to(features, centres), torch.cdist(features, centres).amin(dim=1), atol=1e-3)
    rows = ProjectedRows(features, random_directions(200, seed=5))
    assert rows.shape == (300, 128)
    assert torch.allclose(rows[37:251], random_projection(features, seed=5)[37:251], atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_picks_the_same() -> None:
    features = _cloud(20_000, 64)
    found = greedy_coreset(features.cuda(), 500, seed=0)
    assert torch.equal(found.indices, greedy_coreset(features, 500, seed=0).indices)
