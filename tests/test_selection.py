"""Which channels go: by hand, against a plain reference, and what must hold whatever the scores."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import compress
from compress import CompressError
from compress.graph import ChannelGroup, MapMember, Member
from compress.pruning import Rule, channel_groups, method_name, rank
from compress.pruning.selection import FIXED, SCOPES, prunable, select


def _group(root: str, size: int, blocks: int = 1, kernel: int = 3) -> ChannelGroup:
    with torch.device("meta"):
        layer = nn.Conv2d(1, size, kernel)
    indices = torch.arange(size)
    return ChannelGroup(root, size, (Member(root, layer, True, indices, indices),), blocks)


@st.composite
def _networks(draw: st.DrawFn, most_blocks: int = 4) -> tuple[list[ChannelGroup], list[torch.Tensor]]:
    groups, scores = [], []
    for number in range(draw(st.integers(1, 5))):
        blocks = draw(st.integers(1, most_blocks))
        size = blocks * draw(st.integers(1, 40))
        groups.append(_group(f"g{number}", size, blocks, kernel=draw(st.sampled_from([1, 3]))))
        values = st.lists(st.floats(0, 10, width=32), min_size=size, max_size=size)
        scores.append(torch.tensor(draw(values)))
    return groups, scores


_RATIOS = st.integers(0, 99).map(lambda hundredths: hundredths / 100)
_SCOPES = st.sampled_from(list(SCOPES))


def _widest_cut(group: ChannelGroup) -> float:
    """The largest ratio that leaves one channel in each block."""
    return 1 - group.blocks / group.size + 1e-9


def _kept(groups: list[ChannelGroup], removals: list[list[int]]) -> list[int]:
    return [group.size - len(gone) for group, gone in zip(groups, removals, strict=True)]


def test_local_by_hand() -> None:
    groups = [_group("a", 4), _group("b", 10)]
    scores = [torch.tensor([3.0, 1, 2, 4]), torch.arange(10.0).flip(0)]
    assert select(groups, scores, 0.5, Rule()) == [[1, 2], [5, 6, 7, 8, 9]]
    assert select(groups, scores, 0.7, Rule()) == [[0, 1, 2], [3, 4, 5, 6, 7, 8, 9]]
    assert select(groups, scores, 0, Rule()) == [[], []]


def test_stage_by_hand() -> None:
    """At 0.75 a sixteenth of the channels inside blocks stays; the map is not for cutting."""
    trunk = replace(_group("trunk", 8), maps=(MapMember("layer1", torch.arange(8), torch.arange(8)),))
    inside, rule = _group("inside", 16), Rule("stage")
    assert prunable([trunk, inside], rule, ()) == [inside]
    assert select([inside], [torch.arange(16.0)], 0.75, rule) == [list(range(15))]
    with pytest.raises(CompressError, match=r"none of the 16 channels of inside: .* one is 0\.75"):
        select([inside], [torch.arange(16.0)], 0.751, rule)
    with pytest.raises(CompressError, match="leave no layer to prune"):
        prunable([trunk], rule, ())


def test_stage_leaves_the_maps_whole_and_as_many_weights_as_local(resnet18: compress.Backbone) -> None:
    local, stage = (compress.prune(resnet18, ratio=0.5, rule=Rule(scope)) for scope in ("local", "stage"))
    assert local.feature_info.channels() == [64, 128]
    assert stage.feature_info.channels() == [128, 256]
    assert stage.trunk.get_submodule("layer3.0.conv1").weight.shape[:2] == (64, 128)
    weights = [sum(parameter.numel() for parameter in slim.parameters()) for slim in (local, stage)]
    assert weights[1] == pytest.approx(weights[0], rel=0.06)  # the stem and the shortcuts join two stage maps


def test_global_by_hand() -> None:
    groups = [_group("a", 4), _group("b", 4)]
    scores = [torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([0.4, 0.5, 0.6, 0.7])]
    assert select(groups, scores, 0.5, Rule("global")) == [[0, 1, 2], [0]]
    # No group loses more than half: the fourth channel comes from b, and then the fifth.
    assert select(groups, scores, 0.5, Rule("global", max_layer_ratio=0.5)) == [[0, 1], [0, 1]]


def test_a_ranking_over_all_starves_no_group() -> None:
    groups = [_group("weak", 40), _group("strong", 40)]
    scores = [torch.zeros(40), torch.ones(40)]
    assert _kept(groups, select(groups, scores, 0.6, Rule("global"))) == [4, 28]  # a quarter of 40 x 0.4 stays


def test_isomorphic_ranks_like_with_like() -> None:
    groups = [_group("a", 4), _group("wide", 4, kernel=1), _group("b", 4)]
    scores = [torch.tensor([1.0, 2, 3, 9]), torch.tensor([100.0, 101, 102, 103]), torch.tensor([4.0, 5, 6, 7])]
    assert select(groups, scores, 0.5, Rule("isomorphic")) == [[0, 1, 2], [0, 1], [0]]


def test_round_to_by_hand() -> None:
    groups, scores = [_group("a", 64), _group("b", 20), _group("narrow", 6)], [torch.rand(n) for n in (64, 20, 6)]
    assert _kept(groups, select(groups, scores, 0.7, Rule(round_to=8))) == [16, 8, 6]  # of 19, 6 and 1
    assert _kept(groups, select(groups, scores, 0.99, Rule(round_to=8))) == [8, 8, 6]


def test_rounding_leaves_no_group_less_than_its_limit() -> None:
    groups, scores = [_group("a", 64)], [torch.rand(64)]
    assert _kept(groups, select(groups, scores, 0.5, Rule(max_layer_ratio=0.5, round_to=24))) == [48]  # 24 loses 0.625


def test_blocks_round_together() -> None:
    groups, scores = [_group("a", 48, blocks=4)], [torch.rand(48)]
    assert _kept(groups, select(groups, scores, 0.5, Rule(round_to=8))) == [24]
    assert _kept(groups, select(groups, scores, 0.6, Rule(round_to=8))) == [16]  # 4 a block, then the nearest even


@settings(deadline=None)
@given(_networks(), _RATIOS, _SCOPES, st.integers(1, 16), st.none() | st.integers(1, 99).map(lambda n: n / 100))
def test_whatever_the_scores(
    network: tuple[list[ChannelGroup], list[torch.Tensor]], ratio: float, scope: str, round_to: int, limit: float | None
) -> None:
    groups, scores = network
    rule = Rule(scope, round_to=round_to, max_layer_ratio=limit)
    empties = scope in FIXED and round_to == 1 and any(_widest_cut(group) < rule.share(ratio) for group in groups)
    if (limit is not None and rule.share(ratio) > limit + 1e-9) or (limit is None and empties):
        with pytest.raises(CompressError, match="max_layer_ratio" if limit else "largest ratio that leaves one"):
            select(groups, scores, ratio, rule)
        return
    removals = select(groups, scores, ratio, rule)
    for group, score, gone in zip(groups, scores, removals, strict=True):
        kept = group.size - len(gone)
        assert gone == sorted(set(gone))
        assert not gone or 0 <= gone[0] <= gone[-1] < group.size
        assert kept >= group.blocks
        assert kept % round_to == 0 or kept == group.size or round_to == 1
        assert limit is None or len(gone) <= limit * group.size + 1e-6
        width = group.size // group.blocks
        places = {index % width for index in gone}
        assert len(gone) == len(places) * group.blocks  # each block loses the same places
        means = score.view(group.blocks, width).mean(dim=0)
        left = [place for place in range(width) if place not in places]
        assert not places or max(means[place] for place in places) <= min(means[place] for place in left)


@settings(deadline=None)
@given(_networks(most_blocks=1), _RATIOS)
def test_global_agrees_with_taking_the_least_again_and_again(
    network: tuple[list[ChannelGroup], list[torch.Tensor]], ratio: float
) -> None:
    groups, scores = network
    total = sum(group.size for group in groups)
    most = [group.size - max(1, math.ceil(group.size * (1 - ratio) / 4 - 1e-9)) for group in groups]
    expected: list[set[int]] = [set() for _ in groups]
    for _ in range(total - math.floor(total * (1 - ratio) + 1e-9)):
        able = [place for place in range(len(groups)) if len(expected[place]) < most[place]]
        left = [
            (float(scores[place][channel]), place, channel)
            for place in able
            for channel in range(groups[place].size)
            if channel not in expected[place]
        ]
        if left:
            _, place, channel = min(left)
            expected[place].add(channel)
    assert select(groups, scores, ratio, Rule("global")) == [sorted(gone) for gone in expected]


@settings(deadline=None)
@given(_networks(), _RATIOS)
def test_isomorphic_is_global_within_each_kind(
    network: tuple[list[ChannelGroup], list[torch.Tensor]], ratio: float
) -> None:
    groups, scores = network
    together = select(groups, scores, ratio, Rule("isomorphic"))
    for kernel in (1, 3):
        places = [place for place, g in enumerate(groups) if g.members[0].layer.kernel_size == (kernel, kernel)]
        alone = select([groups[p] for p in places], [scores[p] for p in places], ratio, Rule("global"))
        assert [together[place] for place in places] == alone


@settings(deadline=None)
@given(_networks(), _RATIOS, st.integers(1, 4), st.integers(1, 16), st.randoms(use_true_random=False))
def test_cuts_in_steps_end_where_one_cut_does(
    network: tuple[list[ChannelGroup], list[torch.Tensor]], ratio: float, steps: int, round_to: int, rng: object
) -> None:
    """Counts under scope local; the channels differ, since scores change between the cuts."""
    groups, scores = network
    rule = Rule(round_to=round_to)
    full = {group.root: group.size for group in groups}
    try:
        once = _kept(groups, select(groups, scores, ratio, rule))
    except CompressError:
        return
    generator = torch.Generator().manual_seed(rng.randrange(2**32))  # type: ignore[attr-defined]
    for step in range(1, steps + 1):
        removals = select(groups, scores, 1 - (1 - ratio) ** (step / steps), rule, full=full)
        left = _kept(groups, removals)
        groups = [_group(g.root, size, g.blocks) for g, size in zip(groups, left, strict=True)]
        scores = [torch.rand(size, generator=generator) for size in left]
    assert [group.size for group in groups] == once


@settings(deadline=None)
@given(_networks(most_blocks=1), _RATIOS, st.integers(1, 4))
def test_global_cuts_in_steps_leave_as_many_in_all(
    network: tuple[list[ChannelGroup], list[torch.Tensor]], ratio: float, steps: int
) -> None:
    groups, scores = network
    once = sum(_kept(groups, select(groups, scores, ratio, Rule("global"))))
    full = {group.root: group.size for group in groups}
    for step in range(1, steps + 1):
        removals = select(groups, scores, 1 - (1 - ratio) ** (step / steps), Rule("global"), full=full)
        left = _kept(groups, removals)
        groups = [_group(g.root, size) for g, size in zip(groups, left, strict=True)]
        scores = [score.flip(0)[:size] for score, size in zip(scores, left, strict=True)]
    assert sum(group.size for group in groups) == once


def test_ignored_layers_stay_whole(resnet18: compress.Backbone) -> None:
    slim = compress.prune(resnet18, ratio=0.5, rule=Rule(ignore=("layer2.*.conv1", "conv1")))
    assert slim.spec.pruning is not None
    weights = {name: slim.trunk.get_parameter(f"{name}.weight").shape[0] for name in ("layer2.0.conv1", "conv1")}
    assert weights == {"layer2.0.conv1": 128, "conv1": 64}
    assert "layer2.1.conv1" not in slim.spec.pruning.kept
    assert "layer1.1.conv2" not in slim.spec.pruning.kept  # tied to conv1 by the residual sums
    assert len(slim.spec.pruning.kept["layer3.0.conv1"]) == 128


def test_protected_taps_keep_their_channels(resnet18: compress.Backbone) -> None:
    slim = compress.prune(resnet18, ratio=0.5, rule=Rule(protect_taps=True))
    assert slim.feature_info.channels() == resnet18.feature_info.channels()
    assert compress.cost_of(slim).macs_used < 0.6 * compress.cost_of(resnet18).macs_used


def test_patterns_are_checked(resnet18: compress.Backbone) -> None:
    with pytest.raises(
        CompressError, match=r"ignore 'layer9\.\*' matches no prunable layer: they are bn1, conv1, layer1\.0\.bn1, "
    ):
        channel_groups(resnet18, Rule(ignore=("layer2.*", "layer9.*")))
    with pytest.raises(CompressError, match="leave no layer to prune"):
        channel_groups(resnet18, Rule(ignore=("*",)))


def test_refusals() -> None:
    group, scores = _group("a", 8), torch.rand(8)
    with pytest.raises(CompressError, match=r"ratio 1 is outside \[0, 1\)"):
        select([group], [scores], 1, Rule())
    with pytest.raises(
        CompressError, match=r"none of the 8 channels of a: the largest ratio that leaves one is 0\.875"
    ):
        select([group], [scores], 0.9, Rule())
    with pytest.raises(CompressError, match=r"ratio 0\.5 is above max_layer_ratio 0\.3"):
        select([group], [scores], 0.5, Rule(max_layer_ratio=0.3))
    with pytest.raises(
        CompressError,
        match=r"scope stage, which takes 0\.75: lower it to 0\.367,",
    ):
        select([group], [scores], 0.5, Rule("stage", max_layer_ratio=0.6))
    assert len(select([group], [scores], 0.5, Rule("stage", max_layer_ratio=0.75))[0]) == 6
    with pytest.raises(CompressError, match="2 of the 8 scores of a are NaN"):
        select([group], [torch.tensor([0.0, math.nan, 1, 2, math.nan, 3, 4, 5])], 0.5, Rule())
    with pytest.raises(CompressError, match="did you mean global"):
        Rule("globl")
    with pytest.raises(CompressError, match=r"ignore 'layer1\.\*' is a text.*: give \('layer1\.\*',\)"):
        Rule(ignore="layer1.*")  # type: ignore[arg-type]
    with pytest.raises(CompressError, match="round_to 0 is below 1"):
        Rule(round_to=0)
    with pytest.raises(CompressError, match=r"max_layer_ratio 1\.0 is outside \(0, 1\)"):
        Rule(max_layer_ratio=1.0)


def test_a_layer_of_one_channel_is_refused_with_what_helps() -> None:
    groups, scores = [_group("wide", 8), _group("narrow", 1)], [torch.rand(8), torch.rand(1)]
    with pytest.raises(CompressError, match=r"of narrow: .* one is 0\.0; .* ignore that layer, or give round_to or"):
        select(groups, scores, 0.2, Rule())
    for rule in (Rule(max_layer_ratio=0.9), Rule(round_to=2)):
        assert _kept(groups, select(groups, scores, 0.2, rule)) == [6, 1]


def test_a_limit_saves_narrow_groups() -> None:
    """Ratio 0.9 of 8 channels leaves none; a limit of 0.95 leaves one."""
    assert _kept([_group("a", 8)], select([_group("a", 8)], [torch.rand(8)], 0.9, Rule(max_layer_ratio=0.95))) == [1]


def test_what_lies_past_the_last_tap_refuses_no_ratio() -> None:
    """Its narrowest group has 24 channels; in those of the trained part scope global leaves one."""
    dense = compress.create_backbone("mobilenet_v3_small", weights="none", taps=["features.1", "features.2"])
    ranking = rank(dense, method="magnitude", rule=Rule("global"))
    gone = ranking.removals(0.999)
    assert ranking.tail
    assert all(len(gone[group.root]) == group.size - 1 for group in ranking.tail if group.size < 1000)
    assert ranking.cut(0.999).spec.pruning is not None


def test_a_method_has_one_name() -> None:
    assert (method_name("bn"), method_name("batch_norm"), method_name("lcp")) == ("batch_norm", "batch_norm", "lcp")
    with pytest.raises(CompressError, match="did you mean lcp"):
        method_name("lpc")
