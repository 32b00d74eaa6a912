"""Pruning: the sizes that the literature reports, channels that stay the same function, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import compress
from compress import ARCHITECTURES, METHODS, CompressError
from compress.architectures import find_architecture
from compress.backbone import whole_network
from compress.graph import ChannelGraph, ChannelGroup, Member
from compress.importance import Evidence
from compress.importance.magnitude import magnitude
from compress.pruning import Rule
from compress.pruning.latency import measure_latency
from compress.pruning.selection import lowest
from compress.pruning.sensitivity import sensitivity
from compress.training.checkpoint import digest_of

IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
PHOTOGRAPHS = [torch.full((3, 32, 32), 20 * shade, dtype=torch.uint8) for shade in range(8)]


@pytest.mark.parametrize(("ratio", "millions"), [(0.5, 3.06), (0.9, 0.16)])
def test_resnet18_has_the_published_sizes(resnet18: compress.Backbone, ratio: float, millions: float) -> None:
    slim = compress.prune(resnet18, ratio=ratio)
    assert round(compress.cost_of(slim).params_full / 1e6, 2) == millions


def test_dense_networks_have_the_published_sizes(resnet18: compress.Backbone) -> None:
    cost = compress.cost_of(resnet18)
    small = compress.cost_of(compress.create_backbone("mobilenet_v3_small", weights="none"))
    assert cost.params_full == 11_689_512  # torchvision's own count
    assert small.params_full == 2_542_856
    assert cost.params_used < cost.params_full
    assert cost.macs_used < cost.macs_full


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_every_method_slims(name: str, method: str) -> None:
    _check_half(name, method)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "regnety_002", "densenet121", "resnext50_32x4d"])
def test_every_architecture_slims(name: str) -> None:
    _check_half(name, "magnitude")


def _check_half(name: str, method: str) -> None:
    """Pruned at 0.5 in every layer, it still runs, and is as small as it says."""
    dense = compress.create_backbone(name, weights="none")
    one_shot = METHODS[method].penalty is not None
    slim = compress.prune(dense, ratio=0.5, method=method, rule=Rule(), images=PHOTOGRAPHS, one_shot=one_shot)
    with torch.no_grad():
        maps, before = slim(IMAGES), dense(IMAGES)
    assert [m.shape[1] for m in maps] == slim.feature_info.channels()
    assert [m.shape[2:] for m in maps] == [m.shape[2:] for m in before]
    assert all(
        half * 2 == full for half, full in zip(slim.feature_info.channels(), dense.feature_info.channels(), strict=True)
    )
    assert compress.cost_of(slim).macs_used < 0.4 * compress.cost_of(dense).macs_used
    assert whole_network(slim)(IMAGES).shape == (2, 1000)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_lite0"])
def test_removed_channels_that_were_zero_change_no_map(name: str) -> None:
    """Silence the channels that will go, and the slim network must compute the same maps for those that stay."""
    dense = compress.create_backbone(name, weights="none")
    slim = compress.prune(dense, ratio=0.5)
    assert slim.spec.pruning is not None
    kept = slim.spec.pruning.kept
    silent = compress.create_backbone(name, weights="none")
    _silence(silent.trunk, kept)
    with torch.no_grad():
        for own, reference, tap in zip(slim(IMAGES), silent(IMAGES), slim.spec.taps, strict=True):
            channels = _kept_at(kept, tap)
            assert torch.allclose(own, reference[:, channels], atol=1e-5)


def _silence(trunk: nn.Module, kept: Any) -> None:
    """Zero every removed output channel, and the batch norm behind it."""
    for name, channels in kept.items():
        layer = trunk.get_submodule(name)
        gone = torch.ones(layer.weight.shape[0], dtype=torch.bool)  # type: ignore[index,union-attr]
        gone[list(channels)] = False
        with torch.no_grad():
            layer.weight[gone] = 0  # type: ignore[index,union-attr,operator]
            if layer.bias is not None:
                layer.bias[gone] = 0  # type: ignore[index,union-attr,operator]


def _kept_at(kept: Any, tap: str) -> list[int]:
    """Kept channels of the last pruned layer inside a tapped stage that writes to its output."""
    ends = {"layer2": "layer2.1.conv2", "layer3": "layer3.1.conv2"}
    ends |= {"features.3": "features.3.block.2.0", "features.8": "features.8.block.3.0"}
    ends |= {"blocks.2": "blocks.2.1.conv_pwl", "blocks.4": "blocks.4.2.conv_pwl"}
    return list(kept[ends[tap]])


def test_residual_branches_keep_the_same_channels(resnet18: compress.Backbone) -> None:
    slim = compress.prune(resnet18, ratio=0.3)
    assert slim.spec.pruning is not None
    assert slim.spec.pruning.ratio == 0.3  # as asked, to the last digit
    kept = slim.spec.pruning.kept
    assert kept["layer2.0.conv2"] == kept["layer2.1.conv2"] == kept["layer2.0.downsample.0"]
    assert kept["layer2.0.conv1"] != kept["layer2.1.conv1"]


def test_ratio_zero_is_the_same_network(resnet18: compress.Backbone) -> None:
    same = compress.prune(resnet18, ratio=0)
    with torch.no_grad():
        assert torch.equal(same(IMAGES)[1], resnet18(IMAGES)[1])


def test_pruning_leaves_its_argument_alone(resnet18: compress.Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in resnet18.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    compress.prune(resnet18, ratio=0.5, method="random")
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, resnet18.state_dict()[name]) for name, tensor in before.items())
    assert resnet18.spec.pruning is None


def test_a_network_in_training_mode_is_measured_as_it_will_be_used_and_left_as_it_was(tmp_path: Path) -> None:
    """Whatever passes a batch norm in training mode changes it, and comes out otherwise."""
    network = compress.create_backbone("resnet18", weights="none", seed=1)
    images = list(torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))

    def everything() -> list[object]:
        slim = compress.prune(network, ratio=0.5, method="lcp", images=images)
        assert not slim.training
        scanned = sensitivity(network, images=images, ratios=(0.5,))
        graph = compress.export_onnx(network, tmp_path / "dense.onnx").model.SerializeToString()
        measure_latency(network, repeats=1, warm_up=0)
        return [digest_of(slim.state_dict()), scanned, graph, compress.cost_of(network)]

    expected, before = everything(), digest_of(network.state_dict())
    network.train()
    network.trunk.bn1.eval()  # type: ignore[union-attr,operator]
    assert everything() == expected
    assert digest_of(network.state_dict()) == before
    assert [name for name, module in network.named_modules() if not module.training] == ["trunk.bn1"]


def test_pruning_twice_keeps_the_identity_of_channels(resnet18: compress.Backbone) -> None:
    twice = compress.prune(compress.prune(resnet18, ratio=0.5), ratio=0.5)
    assert twice.spec.pruning is not None
    kept = twice.spec.pruning.kept
    assert twice.spec.pruning.ratio == pytest.approx(0.75)
    assert twice.feature_info.channels() == [32, 64]
    weight = twice.trunk.get_parameter("conv1.weight")
    assert torch.equal(weight, resnet18.trunk.get_parameter("conv1.weight")[list(kept["conv1"])])


def test_random_pruning_follows_its_seed(resnet18: compress.Backbone) -> None:
    first, again, other = (compress.prune(resnet18, ratio=0.5, method="random", seed=s).spec.pruning for s in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.kept == again.kept
    assert first.kept != other.kept


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan")])
def test_ratios_outside_the_range_are_refused(resnet18: compress.Backbone, ratio: float) -> None:
    with pytest.raises(CompressError, match=r"outside \[0, 1\)"):
        compress.prune(resnet18, ratio=ratio)


def test_a_ratio_that_empties_a_layer_is_refused_and_the_largest_named_works() -> None:
    small = compress.create_backbone("mobilenet_v3_small", weights="none")
    with pytest.raises(CompressError, match=r"none of the 8 channels of features\.1\.block\.1\.fc1.*is 0\.875"):
        compress.prune(small, ratio=0.9)
    assert compress.prune(small, ratio=0.875).trunk.get_parameter("features.1.block.1.fc1.weight").shape[0] == 1


def test_an_unknown_method_is_refused_with_the_near_miss(resnet18: compress.Backbone) -> None:
    with pytest.raises(CompressError, match="did you mean magnitude"):
        compress.prune(resnet18, ratio=0.5, method="magnitud")


def test_a_network_that_does_not_fit_the_graph_is_refused() -> None:
    with pytest.raises(CompressError, match="nf_regnet_b0 cannot be pruned"):
        compress.prune(compress.create_backbone("nf_regnet_b0", weights="none"), ratio=0.5)


def test_cutting_a_channel_that_is_not_there_is_refused(resnet18: compress.Backbone) -> None:
    graph = ChannelGraph(find_architecture("resnet18"), whole_network(resnet18), resnet18.stages)
    with pytest.raises(CompressError, match="channels 0 to 63"):
        graph.remove({next(group for group in graph.groups() if group.size == 64).root: [999]})


def test_magnitude_by_hand() -> None:
    conv = nn.Conv2d(1, 3, kernel_size=2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, -1, 1, -1], [2, 2, 2, 2], [0, 0, 0, 0]]).view(3, 1, 2, 2))
    group = ChannelGroup("conv", 3, (_member("conv", conv),), blocks=1)
    # L1 norms 4, 8, 0 with a mean of 4
    assert magnitude(group, Evidence(torch.Generator())).tolist() == [1.0, 2.0, 0.0]


def test_magnitude_lets_tied_layers_weigh_the_same() -> None:
    small, large = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(1, 2, 1, bias=False)
    with torch.no_grad():
        small.weight.copy_(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
        large.weight.copy_(torch.tensor([300.0, 100.0]).view(2, 1, 1, 1))
    group = ChannelGroup("small", 2, (_member("small", small), _member("large", large)), blocks=1)
    assert magnitude(group, Evidence(torch.Generator())).tolist() == [1.0, 1.0]


def test_magnitude_agrees_with_torch_pruning(resnet18: compress.Backbone) -> None:
    """On a group of one filter layer the ranking is that of Torch-Pruning's own L1 importance."""
    import torch_pruning as tp

    network = whole_network(resnet18)
    dependency = tp.DependencyGraph().build_dependency(network, torch.zeros(1, 3, 64, 64))
    layer: Any = network.get_submodule("layer2.0.conv1")
    theirs = tp.importance.MagnitudeImportance(p=1, target_types=[nn.Conv2d])
    group = dependency.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(128)))
    filters_alone = [item for item in group if item.dep.target.module is layer]
    group._group = filters_alone
    own = magnitude(ChannelGroup("conv", 128, (_member("conv", layer),), blocks=1), Evidence(torch.Generator()))
    assert torch.equal(own.argsort(), theirs(group).argsort())


def _member(name: str, layer: nn.Conv2d) -> Member:
    indices = torch.arange(layer.out_channels)
    return Member(name, layer, True, indices, indices)


def test_lowest_takes_the_same_place_from_every_block() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 9.0, 2.0, 1.0])
    assert lowest(scores, 1, blocks=2) == [1, 4]  # means 5, 2, 2: the first of equals


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.data())
def test_lowest_takes_no_channel_above_one_that_it_leaves(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values)
    chosen = lowest(scores, count)
    left: Tensor = scores[[index for index in range(len(values)) if index not in chosen]]
    assert len(chosen) == count
    assert not chosen or not len(left) or scores[chosen].max() <= left.min()
