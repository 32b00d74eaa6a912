"""Targets: what a user types, the smallest ratio that meets it, and cuts in steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import compress
from compress import Backbone, CompressError
from compress.artifact import artifact_bytes
from compress.pruning import Rule, Target, rank
from compress.pruning import targets as targets_module
from compress.pruning.iteration import prune_in_steps
from compress.pruning.latency import measure_latency
from compress.pruning.ranking import Ranking
from compress.pruning.targets import QUANTITIES, find_ratio, longest_bytes


@pytest.fixture(scope="module")
def small() -> Backbone:
    return compress.create_backbone("mobilenet_v3_small", weights="none")


@pytest.mark.parametrize(
    ("kind", "text", "limit", "share"),
    [
        ("params", "3M", 3e6, False),
        ("params", "700000", 7e5, False),
        ("params", "2.5e6", 2.5e6, False),
        ("macs", " 1.5 G ", 1.5e9, False),
        ("macs", "25%", 0.25, True),
        ("size", "1MB", 1e6, False),
        ("size", "1MiB", 2**20, False),
        ("size", "900 kB", 9e5, False),
        ("latency", "5ms", 5, False),
        ("latency", "0.02s", 20, False),
        ("latency", ".5 ms", 0.5, False),
        ("latency", "12.5%", 0.125, True),
    ],
)
def test_what_a_user_types(kind: str, text: str, limit: float, share: bool) -> None:
    assert Target.parse(kind, text) == Target(kind, limit, share)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("params", "3m"), ("params", "-3M"), ("params", "0"), ("params", "M"), ("params", ""), ("params", "3MB"),
        ("macs", "nan"), ("macs", "1e999"), ("size", "1Mb"), ("latency", "5"), ("latency", "5 minutes"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_an_example(kind: str, text: str) -> None:
    with pytest.raises(
        CompressError, match=f"target {kind} .* not understood: write it like {QUANTITIES[kind].example}"
    ):
        Target.parse(kind, text)


def test_other_refusals_of_what_a_user_types() -> None:
    with pytest.raises(CompressError, match="target macs 100% is no reduction"):
        Target.parse("macs", "100%")
    with pytest.raises(CompressError, match="did you mean params"):
        Target.parse("param", "3M")


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize(("kind", "text"), [("params", "30%"), ("macs", "25%"), ("size", "500kB")])
def test_the_smallest_ratio_that_meets_a_target(
    small: Backbone, kind: str, text: str, scope: str, cuts: list[float]
) -> None:
    ranking = rank(small, method="magnitude", rule=Rule(scope))
    measure = QUANTITIES[kind].measure
    limit = 500_000 if kind == "size" else float(text.rstrip("%")) / 100 * measure(small)
    ratio, slim = find_ratio(ranking, Target.parse(kind, text))
    assert len(cuts) <= 12
    assert measure(slim) <= limit < measure(ranking.cut(ratio - 0.001))
    assert slim.spec.pruning is not None
    assert slim.spec.pruning.ratio == pytest.approx(ratio)


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The ratios that were cut at."""
    tried: list[float] = []
    cut = Ranking.cut

    def counted(self: Ranking, ratio: float) -> Backbone:
        tried.append(ratio)
        return cut(self, ratio)

    monkeypatch.setattr(Ranking, "cut", counted)
    return tried


def test_a_share_is_of_the_dense_parent(small: Backbone) -> None:
    dense = compress.cost_of(small).params_used
    half = compress.prune(small, ratio=0.3)
    _, slim = find_ratio(rank(half, method="magnitude"), Target.parse("params", "20%"))
    assert 0.18 * dense < compress.cost_of(slim).params_used <= 0.2 * dense


def test_a_target_that_no_ratio_meets_names_the_nearest_that_can(small: Backbone) -> None:
    ranking = rank(small, method="magnitude")
    with pytest.raises(CompressError, match=r"cannot be met: ratio 0\.875, .* still has ([\d.]+)k") as refused:
        find_ratio(ranking, Target.parse("params", "100"))
    named = str(refused.value).split("still has ")[1].split()[0]
    ratio, slim = find_ratio(ranking, Target.parse("params", named))
    assert ratio <= 0.875
    assert compress.cost_of(slim).params_used <= float(named.rstrip("k")) * 1000


LIMITED = Rule(max_layer_ratio=0.5, round_to=8, ignore=("features.8*",), protect_taps=True)


@pytest.mark.parametrize(
    ("rule", "cures"),
    [
        (Rule(), {"give max_layer_ratio 0.99, .*": Rule(max_layer_ratio=0.99)}),
        (Rule(max_layer_ratio=0.3), {"raise max_layer_ratio": Rule(max_layer_ratio=0.6)}),
        (Rule(round_to=16), {"lower round_to and give max_layer_ratio 0.99": Rule(round_to=8, max_layer_ratio=0.99)}),
        (
            LIMITED,
            {
                "raise max_layer_ratio": Rule(
                    max_layer_ratio=0.9, round_to=16, ignore=("features.1*",), protect_taps=True
                ),
                "lower round_to": replace(LIMITED, round_to=1),
                "ignore fewer layers": replace(LIMITED, ignore=()),
                "let tapped channels go": replace(LIMITED, protect_taps=False),
            },
        ),
        (
            Rule("stage", max_layer_ratio=0.9),
            {
                "raise max_layer_ratio": Rule("stage", max_layer_ratio=0.99),
                "take another scope, .*": Rule(max_layer_ratio=0.9),
            },
        ),
        (Rule("global"), {}),
    ],
)
def test_a_target_that_cannot_be_met_names_what_would_let_it_go_further(
    rule: Rule, cures: dict[str, Rule], small: Backbone
) -> None:
    def least(rule: Rule, named: str = "") -> float:
        with pytest.raises(
            CompressError, match=f"; allow that much, {named}or choose a smaller architecture"
        ) as refused:
            find_ratio(rank(small, method="magnitude", rule=rule), Target.parse("params", "10"))
        number = str(refused.value).split("still has ")[1].split()[0]
        return float(number.rstrip("k")) * (1000 if number.endswith("k") else 1)

    reached = least(rule, "".join(f"{cure}, " for cure in cures))
    for cured in cures.values():
        assert least(cured, ".*") < reached


def test_a_target_that_is_met_uncut_is_refused(small: Backbone) -> None:
    with pytest.raises(CompressError, match="target params 3M is already met: this mobilenet_v3_small has"):
        find_ratio(rank(small, method="magnitude"), Target.parse("params", "3M"))


@given(st.integers(2, 998), st.floats(0.3, 4))
def test_any_falling_cost_is_searched_exactly(threshold: int, power: float) -> None:
    """Cuts and costs made up: cost (1 - ratio)^power, the limit between two neighbouring steps."""

    def cost(step: int) -> float:
        return float((1 - step / 1000) ** power)

    ranking = _FakeRanking()
    quantity = targets_module.Quantity("made up", {"": 1.0}, "1", lambda backbone: cost(backbone.step))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(QUANTITIES, "made up", quantity)
        limit = (cost(threshold) + cost(threshold - 1)) / 2
        ratio, found = find_ratio(ranking, Target("made up", limit))  # type: ignore[arg-type]
    assert round(ratio * 1000) == threshold
    assert found.step == threshold
    assert len(ranking.cuts) <= 12


class _FakeBackbone:
    def __init__(self, step: int) -> None:
        self.step = step


class _FakeRanking:
    """A ranking whose cut is nothing but its own ratio."""

    def __init__(self) -> None:
        self.backbone = _FakeBackbone(0)
        self.cuts: list[float] = []

    def removals(self, ratio: float) -> dict[str, list[int]]:
        return {"layer": list(range(round(ratio * 1000)))}

    def cut(self, ratio: float) -> _FakeBackbone:
        self.cuts.append(ratio)
        return _FakeBackbone(round(ratio * 1000))


def test_latency_on_a_machine_whose_speed_is_known(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time made proportional to MACs: the answer is that of the same share of MACs, on the coarser grid."""
    monkeypatch.setattr(targets_module, "measure_latency", lambda net: QUANTITIES["macs"].measure(net) / 1e7)
    ranking = rank(small, method="magnitude", rule=Rule(round_to=8))
    ratio, slim = find_ratio(ranking, Target.parse("latency", "50%"))
    by_macs, _ = find_ratio(ranking, Target.parse("macs", "50%"))
    assert by_macs <= ratio < by_macs + 0.01
    assert round(ratio, 2) == ratio
    assert all(width % 8 == 0 for width in slim.feature_info.channels())


def test_latency_is_measured(small: Backbone) -> None:
    training = compress.create_backbone("mobilenet_v3_small", weights="none").train()
    one, four = measure_latency(training, repeats=5), measure_latency(small, images=8, repeats=5)
    assert training.training
    assert 0 < one < four
    with pytest.raises(CompressError, match="0 repeats of 1 images"):
        measure_latency(small, repeats=0)


@pytest.mark.parametrize(("arch", "ratio"), [("resnet18", 0.5), ("mobilenet_v3_small", 0.6)])
def test_cuts_in_steps_leave_as_many_channels_as_one_cut(arch: str, ratio: float) -> None:
    dense = compress.create_backbone(arch, weights="none")
    recovered: list[Backbone] = []

    def recover(backbone: Backbone) -> Backbone:
        """Weights that have nothing to do with those before."""
        recovered.append(backbone)
        generator = torch.Generator().manual_seed(len(recovered))
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator))
        return backbone

    slim = prune_in_steps(dense, ratio=ratio, steps=3, rank=_by_magnitude, recover=recover)
    once = compress.prune(dense, ratio=ratio)
    assert len(recovered) == 2
    assert _shapes(slim) == _shapes(once)
    assert slim.spec.pruning is not None
    assert once.spec.pruning is not None
    assert slim.spec.pruning.ratio == pytest.approx(ratio)
    assert slim.spec.pruning.kept != once.spec.pruning.kept
    assert compress.cost_of(slim) == compress.cost_of(once)


def _by_magnitude(backbone: Backbone, share: float, full: Mapping[str, int]) -> Ranking:
    return rank(backbone, method="magnitude")


def _shapes(backbone: Backbone) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in backbone.state_dict().items()}


def test_cuts_in_steps_of_what_is_slim_already(small: Backbone) -> None:
    half = compress.prune(small, ratio=0.5)
    between: list[float] = []

    def recover(backbone: Backbone) -> Backbone:
        assert backbone.spec.pruning is not None
        between.append(backbone.spec.pruning.ratio)
        return backbone

    slim = prune_in_steps(half, ratio=0.4, steps=2, rank=_by_magnitude, recover=recover)
    assert between == [pytest.approx(1 - 0.5 * 0.6**0.5)]
    assert _shapes(slim) == _shapes(compress.prune(half, ratio=0.4))
    assert slim.spec.pruning is not None
    assert slim.spec.pruning.ratio == pytest.approx(0.7)
    assert artifact_bytes(slim) < artifact_bytes(half)
    with pytest.raises(CompressError, match="0 cuts prune nothing"):
        prune_in_steps(half, ratio=0.4, steps=0, rank=_by_magnitude, recover=lambda backbone: backbone)


@pytest.mark.parametrize(("options", "steps"), [({}, 123_456), ({"cuts": 2}, 7), ({"rule": Rule("global")}, 1500)])
def test_a_size_is_met_after_recovery_too(small: Backbone, options: dict[str, Any], steps: int) -> None:
    """The file of the cut alone is a few kilobytes below what it may be."""
    slim = compress.prune(small, target=Target.parse("size", "600kB"), **options)
    assert slim.spec.pruning is not None
    done = replace(slim.spec.pruning, recover="reinit+bn+distill+finetune", recover_steps=steps, sparse_steps=steps)
    before = artifact_bytes(slim)
    slim.spec = replace(slim.spec, pruning=done)
    assert 0.97 * 6e5 < before < artifact_bytes(slim) <= 6e5


def test_the_longest_record_is_longer_than_that_of_any_channels(small: Backbone) -> None:
    """Those with the highest numbers stay in the one cut and go in the other."""
    ranking = rank(small, method="magnitude")
    sizes = {}
    for sign in (1, -1):
        scores = tuple(sign * torch.arange(group.size).float() for group in ranking.groups)
        slim = replace(ranking, scores=scores).cut(0.5)
        sizes[artifact_bytes(slim)] = longest_bytes(slim)
    assert len(sizes) == 2
    assert len(set(sizes.values())) == 1
    assert max(sizes) < min(sizes.values()) < 1.01 * max(sizes)
