"""The methods: each by hand and against an independent implementation, and the sparse phases' penalties."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

import compress
from compress import METHODS, CompressError
from compress.backbone import whole_network
from compress.channel_statistics import ChannelStatistics
from compress.graph import ChannelGroup, MapMember, Member
from compress.importance import Evidence
from compress.importance.batches import batches
from compress.importance.filter_norms import filter_norms
from compress.importance.gradients import collect_taylor
from compress.pruning import channel_groups, check_request, rank

NONE = Evidence(torch.Generator())


def _group(size: int, *members: Member, maps: tuple[MapMember, ...] = ()) -> ChannelGroup:
    return ChannelGroup(members[0].name, size, members, blocks=1, maps=maps)


def _member(layer: nn.Module, size: int, name: str = "conv", *, outputs: bool = True, repeat: int = 1) -> Member:
    """Channel k of the group is the layer's entries repeat * k ... repeat * k + repeat - 1."""
    return Member(name, layer, outputs, torch.arange(size * repeat), torch.arange(size).repeat_interleave(repeat))


def _conv(rows: list[list[float]], groups: int = 1) -> nn.Conv2d:
    """A 1x1 convolution with these filters."""
    weight = torch.tensor(rows)
    layer = nn.Conv2d(weight.shape[1] * groups, len(rows), 1, bias=False, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(weight[:, :, None, None])
    return layer


def _norm(scales: list[float]) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(len(scales))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(scales))
    return layer


@pytest.fixture(scope="module")
def trained() -> compress.Backbone:
    """A ResNet-18 whose batch norms differ, as after training."""
    backbone = compress.create_backbone("resnet18", weights="none")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(-1, 1, generator=generator)
    return backbone


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=generator) for _ in range(8)]


class _Theirs:
    """Torch-Pruning's groups of the same network, cut down to chosen layers."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._graph = tp.DependencyGraph().build_dependency(network, torch.zeros(1, 3, 64, 64))

    def group(self, root: str, *names: str) -> Any:
        """The dependency group of `root`'s outputs; with names, only these layers of it."""
        layer: Any = self.network.get_submodule(root)
        group = self._graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))
        if names:
            chosen = [self.network.get_submodule(name) for name in names]
            group._group = [item for item in group._group if item.dep.target.module in chosen]
        return group


@pytest.fixture(scope="module")
def theirs(trained: compress.Backbone) -> _Theirs:
    return _Theirs(whole_network(trained))


def _find(groups: list[ChannelGroup], root: str) -> ChannelGroup:
    return next(group for group in groups if group.root == root)


# Magnitude


def test_magnitude_l2_by_hand() -> None:
    group = _group(2, _member(_conv([[3.0, 4.0], [0.0, 5.0]]), 2))
    assert METHODS["magnitude_l2"].score(group, NONE).tolist() == [1, 1]  # L1 would say 7 : 5
    assert METHODS["magnitude"].score(group, NONE).tolist() == pytest.approx([7 / 6, 5 / 6])


# Batch norm


def test_batch_norm_by_hand() -> None:
    conv = _conv([[1.0], [1.0], [1.0]])
    group = _group(3, _member(conv, 3), _member(_norm([-3, 0, 1]), 3), _member(_norm([1, 2, 1]), 3))
    assert METHODS["batch_norm"].score(group, NONE).tolist() == [2, 1, 1]


def test_batch_norm_agrees_with_torch_pruning(trained: compress.Backbone, theirs: _Theirs) -> None:
    group = _find(channel_groups(trained)[0], "layer2.0.downsample.0")
    own = METHODS["batch_norm"].score(group, NONE)
    norms = [member.name for member, _ in group.norms()]
    assert len(norms) == 3
    reference = tp.importance.BNScaleImportance(normalizer=None)(theirs.group(group.root, *norms))
    torch.testing.assert_close(own, reference)


def test_batch_norm_falls_back_on_filters_where_there_is_none() -> None:
    group = _group(2, _member(_conv([[1.0], [3.0]]), 2))
    assert METHODS["batch_norm"].score(group, NONE).tolist() == [0.5, 1.5]


def test_batch_norm_penalty_by_hand() -> None:
    norm = _norm([-3, 0, 1])
    make = METHODS["batch_norm"].penalty
    assert make is not None
    loss = make([_group(3, _member(norm, 3))], [[]])(0.3)
    loss.backward()
    assert loss.item() == pytest.approx(4e-4)
    assert norm.weight.grad is not None
    assert norm.weight.grad.tolist() == pytest.approx([-1e-4, 0, 1e-4])
    with pytest.raises(CompressError, match="batch norm to press down"):
        make([_group(1, _member(_conv([[1.0]]), 1))], [[]])


# Growing regularization


def test_growing_reg_presses_the_chosen_channels_alone_and_ever_harder() -> None:
    conv, norm, after = _conv([[1.0, 2.0], [3.0, 4.0]]), _norm([5, 6]), _conv([[7.0, 8.0]])
    group = _group(2, _member(conv, 2), _member(norm, 2), _member(after, 2, outputs=False))
    make = METHODS["growing_reg"].penalty
    assert make is not None
    penalty = make([group], [[1]])
    assert penalty(0).item() == 0
    assert penalty(1).item() == pytest.approx((9 + 16 + 36) / 2)
    assert penalty(0.5).item() == pytest.approx(penalty(1).item() / 2)
    penalty(0.5).backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.flatten(1).tolist() == [[0, 0], [1.5, 2]]  # lambda * w
    assert norm.weight.grad is not None
    assert norm.weight.grad.tolist() == [0, 3]
    assert after.weight.grad is None


def test_growing_reg_drives_what_goes_to_zero_and_the_order_is_kept() -> None:
    """Under the penalty alone, at a step of 0.1 and the full factor, 60 steps leave 0.9 ** 60 of a weight."""
    conv = _conv([[1.0, 2.0], [3.0, 4.0]])
    make = METHODS["growing_reg"].penalty
    assert make is not None
    penalty = make([_group(2, _member(conv, 2))], [[0]])
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        penalty(1).backward()
        optimizer.step()
    assert conv.weight.flatten(1)[0].tolist() == pytest.approx([0.9**60, 2 * 0.9**60], rel=1e-4)
    assert conv.weight.flatten(1)[1].tolist() == [3, 4]
    assert METHODS["growing_reg"].score(_group(2, _member(conv, 2)), NONE).argmin() == 0


# LAMP


def test_layer_adaptive_by_hand() -> None:
    group = _group(3, _member(_conv([[2.0], [1.0], [3.0]]), 3))
    # squares 4, 1, 9: 4 / (4 + 9), 1 / (1 + 4 + 9), 9 / 9
    assert METHODS["layer_adaptive"].score(group, NONE).tolist() == pytest.approx([4 / 13, 1 / 14, 1])


def test_layer_adaptive_takes_equal_channels_in_order() -> None:
    group = _group(3, _member(_conv([[1.0], [1.0], [1.0]]), 3))
    assert METHODS["layer_adaptive"].score(group, NONE).tolist() == pytest.approx([1 / 3, 1 / 2, 1])


def test_layer_adaptive_agrees_with_torch_pruning(trained: compress.Backbone, theirs: _Theirs) -> None:
    group = _find(channel_groups(trained)[0], "layer2.0.conv1")
    own = METHODS["layer_adaptive"].score(group, NONE)
    reference = tp.importance.LAMPImportance(p=2)(theirs.group(group.root, group.root))
    torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-6)


def test_layer_adaptive_is_magnitude_within_a_group(trained: compress.Backbone) -> None:
    for group in channel_groups(trained)[0]:
        by_lamp = METHODS["layer_adaptive"].score(group, NONE).argsort(stable=True)
        assert torch.equal(filter_norms(group, power=2).argsort(stable=True), by_lamp)
    assert METHODS["layer_adaptive"].scope == "global"


# Group norm


def test_group_norm_by_hand() -> None:
    before, norm, after = _conv([[3.0], [1.0]]), _norm([4, 1]), _conv([[0.0, 1.0], [0.0, 1.0]])
    group = _group(2, _member(before, 2), _member(norm, 2), _member(after, 2, outputs=False))
    # squares: 9 + 16 + 0 and 1 + 1 + 2, roots 5 and 2, their mean 3.5
    assert METHODS["group_norm"].score(group, NONE).tolist() == pytest.approx([5 / 3.5, 2 / 3.5])


def test_group_norm_reads_a_grouped_convolution_block_by_block() -> None:
    """Torch-Pruning 1.6 adds up the blocks, as if each input were read by all of them."""
    after = _conv([[1.0, 2.0], [0.0, 2.0], [3.0, 0.0], [4.0, 6.0]], groups=2)  # inputs 0 1 | 2 3
    group = _group(4, _member(after, 4, outputs=False))
    expected = torch.tensor([1.0, 8, 25, 36]).sqrt()
    torch.testing.assert_close(METHODS["group_norm"].score(group, NONE), expected / expected.mean())


def test_group_norm_counts_all_inputs_that_a_flattened_channel_becomes() -> None:
    before, head = _conv([[0.0], [0.0]]), nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 2, 2, 4, 4, 2]]))
    group = _group(2, _member(before, 2), _member(head, 2, "head", outputs=False, repeat=3))
    assert METHODS["group_norm"].score(group, NONE).tolist() == pytest.approx([3 / 4.5, 6 / 4.5])


def test_group_norm_agrees_with_torch_pruning(trained: compress.Backbone, theirs: _Theirs) -> None:
    """Groups without a grouped convolution, over all of their layers."""
    reference = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None)
    groups, _ = channel_groups(trained)
    for root in ("layer1.0.conv1", "conv1", "layer2.0.downsample.0"):
        group = _find(groups, root)
        norms = reference(theirs.group(root)).sqrt()
        torch.testing.assert_close(METHODS["group_norm"].score(group, NONE), norms / norms.mean(), rtol=1e-4, atol=0)


def test_group_norm_penalty_by_hand() -> None:
    conv = _conv([[1.0], [2.0], [3.0]])
    make = METHODS["group_norm"].penalty
    assert make is not None
    loss = make([_group(3, _member(conv, 3))], [[]])(0.5)
    # I = 1, 4, 9: gamma = 2 ** (4 * (9 - I) / 8) = 16, 2 ** 2.5, 1
    assert loss.item() == pytest.approx(1e-4 / 2 * (16 + 2**2.5 * 4 + 9), rel=1e-5)
    loss.backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.flatten().tolist() == pytest.approx([16e-4, 2**2.5 * 2e-4, 3e-4], rel=1e-5)


def test_group_norm_penalty_of_equal_channels_is_finite() -> None:
    make = METHODS["group_norm"].penalty
    assert make is not None
    assert make([_group(2, _member(_conv([[1.0], [1.0]]), 2))], [[]])(1).item() == pytest.approx(1e-4)


# LCP


def _statistics(l1: list[float], variance: list[float], sparsity: list[float]) -> ChannelStatistics:
    return ChannelStatistics(*(torch.tensor(values, dtype=torch.float64) for values in (l1, variance, sparsity)))


def test_lcp_by_hand() -> None:
    conv, after = _conv([[1.0], [1.0]]), _conv([[1.0, 1.0]])
    group = _group(2, _member(conv, 2), _member(after, 2, "after", outputs=False))
    seen = {"after": _statistics([1, 3], [5, 5], [0.9, 0.1])}
    # standardised: -1 and 1, 0 and 0, 1 and -1
    assert METHODS["lcp"].score(group, Evidence(NONE.generator, activations=seen)).tolist() == [-2, 2]


def test_lcp_averages_the_places_where_a_channel_is_read() -> None:
    conv, head = _conv([[1.0], [1.0]]), nn.Linear(4, 1)
    shown = MapMember("stage", torch.tensor([1, 0]), torch.tensor([0, 1]))
    group = _group(2, _member(conv, 2), _member(head, 2, "head", outputs=False, repeat=2), maps=(shown,))
    flat = [0.0] * 4
    seen = {"head": _statistics([0, 0, 2, 2], flat, flat), "stage": _statistics([7, 3], [0, 0], [0, 0])}
    # at the head -1 and 1, each entered twice; in the map, whose channels are swapped, -1 and 1
    assert METHODS["lcp"].score(group, Evidence(NONE.generator, activations=seen)).tolist() == [-1, 1]


def test_lcp_finds_the_channels_that_were_silenced(images: list[Tensor]) -> None:
    backbone = compress.create_backbone("resnet18", weights="none")
    with torch.no_grad():
        norm = backbone.trunk.get_submodule("layer2.1.bn1")
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight[:40] = 0
        norm.bias[:40] = -1
    ranking = rank(backbone, method="lcp", images=images)
    place = [group.root for group in ranking.groups].index("layer2.1.conv1")
    assert set(range(40)) <= set(ranking.scores[place].argsort()[:64].tolist())
    assert set(range(40)) <= set(ranking.removals(0.5)["layer2.1.conv1"])


# Taylor


def test_taylor_by_hand() -> None:
    first, second = _conv([[1.0], [1.0]]), _conv([[1.0], [1.0]])
    group = _group(2, _member(first, 2, "first"), _member(second, 2, "second"))
    worth = {"first": torch.tensor([1.0, 2.0]).double(), "second": torch.tensor([10.0, 0.0]).double()}
    assert METHODS["taylor"].score(group, Evidence(NONE.generator, taylor=worth)).tolist() == [11, 2]


def test_taylor_is_what_scaling_a_filter_changes(trained: compress.Backbone, images: list[Tensor]) -> None:
    """sum of w * g is the slope of the loss as all of a filter is scaled: a difference quotient in float64."""
    groups, _ = channel_groups(trained)
    found = collect_taylor(trained, groups, images, batch=8)["layer3.0.conv2"]
    doubles = _doubled(trained)
    x = next(batches(images, trained, 8)).double()
    with torch.no_grad():
        scale = [feature_map.square().mean() for feature_map in doubles(x)]

        def loss() -> float:
            return sum((m.square().mean() / (2 * s)).item() for m, s in zip(doubles(x), scale, strict=True))

        weight = doubles.trunk.get_parameter("layer3.0.conv2.weight")
        weight[7] *= 1 + 1e-5
        above = loss()
        weight[7] *= (1 - 1e-5) / (1 + 1e-5)
        slope = (above - loss()) / 2e-5
        assert found[7].item() == pytest.approx(slope**2, rel=1e-2)


def _doubled(backbone: compress.Backbone) -> compress.Backbone:
    return copy.deepcopy(backbone).double()


def test_taylor_agrees_with_torch_pruning(trained: compress.Backbone, images: list[Tensor], theirs: _Theirs) -> None:
    """On one filter layer: theirs is |sum w * g|. Over a whole group it would pass over every batch norm."""
    groups, _ = channel_groups(trained)
    group = _find(groups, "layer2.1.conv1")
    worth = collect_taylor(trained, groups, images, batch=8)
    own = METHODS["taylor"].score(group, Evidence(NONE.generator, taylor=worth))
    layer: Any = theirs.network.get_submodule(group.root)
    twin = _doubled(trained).float()
    loss = sum(m.square().mean() / (2 * m.square().mean().detach()) for m in twin(next(batches(images, twin, 8))))
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    layer.weight.grad = twin.trunk.get_parameter(f"{group.root}.weight").grad
    reference = tp.importance.GroupTaylorImportance(multivariable=True, normalizer=None)
    expected = reference(theirs.group(group.root, group.root)).double().square()
    torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-12)


def test_taylor_leaves_the_backbone_alone(trained: compress.Backbone, images: list[Tensor]) -> None:
    trained.requires_grad_(False)
    rank(trained, method="taylor", images=images)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in trained.parameters())
    trained.requires_grad_(True)


# All of them


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_finite_and_tell_channels_apart(
    method: str, trained: compress.Backbone, images: list[Tensor]
) -> None:
    ranking = rank(trained, method=method, images=images)
    for group, scores in zip(ranking.groups, ranking.scores, strict=True):
        assert scores.shape == (group.size,)
        assert scores.isfinite().all()
        assert len(scores.unique()) > group.size / 2


@pytest.mark.parametrize("method", [name for name, own in METHODS.items() if own.reads != "weights"])
def test_images_are_asked_for_before_any_work(
    method: str, images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("compress.pruning.ranking.channel_groups", refuse)
    backbone: Any = None
    with pytest.raises(CompressError, match=rf"method {method} reads \w+, for which it needs images: give at least 8"):
        compress.prune(backbone, ratio=0.5, method=method)
    with pytest.raises(CompressError, match=rf"7 images are too few for {method}: at least 8 are needed"):
        compress.prune(backbone, ratio=0.5, method=method, images=images[:7])
    with pytest.raises(CompressError, match="2 images are too few"):
        rank(backbone, method=method, images=images[:2])


def test_regions_go_with_statistics_alone(images: list[Tensor]) -> None:
    with pytest.raises(CompressError, match="regions restrict statistics of activations, and taylor reads none"):
        check_request(ratio=0.5, method="taylor", images=images, regions=[None] * 8)
    with pytest.raises(CompressError, match="3 regions for 8 images"):
        check_request(ratio=0.5, method="lcp", images=images, regions=[None] * 3)


@pytest.mark.parametrize("make", [own.penalty for own in METHODS.values() if own.penalty is not None])
def test_a_penalty_reaches_every_group_of_a_network(make: Callable[..., Any]) -> None:
    """On a network with squeeze-excite gates, which have no batch norm."""
    backbone = compress.create_backbone("mobilenet_v3_small", weights="none")
    groups, _ = channel_groups(backbone)
    loss = make(groups, [[0, 1]] * len(groups))(0.5)
    assert math.isfinite(loss.item())
    assert loss.item() > 0
    loss.backward()
    for group in groups:
        reached = [own.layer.weight.grad for own in group.members if own.outputs and hasattr(own.layer, "weight")]
        gated = not list(group.norms())
        assert gated or any(gradient is not None and gradient.any() for gradient in reached), group.root
