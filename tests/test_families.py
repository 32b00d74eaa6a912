"""Families of networks: what is cut leaves the same function, and what cannot be cut is refused or left whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import compress
from compress import CompressError
from compress.backbone import Backbone, whole_network
from compress.graph import check_cut
from compress.pruning import left_whole

# One small member of each kind of wiring; benchmarks/families.py has all families.
SOUND = {
    "convnext_atto": "depthwise, LayerNorm over the second axis, layer scale",
    "convnext_tiny": "LayerNorm and linear layers over the last axis",
    "densenet121": "concatenation",
    "hgnetv2_b0": "concatenation behind activations that are shifted",
    "lcnet_050": "squeeze and excite, depthwise",
    "mnasnet_small": "inverted residuals",
    "mobilenetv4_conv_small": "universal inverted bottlenecks",
    "regnetx_002": "grouped convolutions",
    "regnety_002": "grouped convolutions, squeeze and excite",
    "repghostnet_050": "branches that are summed",
    "seresnet18": "squeeze and excite, residual sums",
    "vgg11_bn": "a plain chain",
}
IN_PART = {
    "cspresnet50": "splits",
    "edgenext_xx_small": "splits",
    "fasternet_t0": "splits",
    "resnest14d": "only go together",
    "rexnet_100": "only go together",
}


def _randomised(name: str) -> Backbone:
    """Norms, biases and scales away from one and zero, where a wrong channel would not show."""
    backbone = compress.create_backbone(name, weights="none")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in [*backbone.trunk.named_parameters(), *backbone.trunk.named_buffers()]:
            if tensor.ndim == 1:
                middle = 1.0 if key.endswith(("weight", "running_var", "gamma")) else 0.0
                tensor.copy_(middle + torch.rand(tensor.shape, generator=generator) / 2 - 0.25)
    return backbone


@pytest.mark.parametrize("name", [*SOUND, *IN_PART])
def test_family_prunes_runs_saves_and_loads_the_same(name: str, tmp_path: Path) -> None:
    """`prune` compares every stage's map with the silenced dense network's; see the tests of `check_cut` below."""
    dense = _randomised(name)
    slim = compress.prune(dense, ratio=0.5)
    assert slim.spec.pruning is not None
    before, after = (sum(parameter.numel() for parameter in net.trunk.parameters()) for net in (dense, slim))
    # A quarter, and a little more where biases and depthwise filters are many.
    assert after < (0.4 if name in SOUND else 0.65) * before
    side = slim.spec.size
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole_network(slim)(images)
        maps = slim(images)
        compress.save(slim, tmp_path / "slim.safetensors")
        loaded = compress.load_backbone(tmp_path / "slim.safetensors")(images)
        widths = dict(zip(dense.stages, (m.shape[1] for m in slim.stage_maps(images, dense.stages)), strict=True))
    assert all(torch.equal(own, other) for own, other in zip(maps, loaded, strict=True))
    channels = slim.spec.pruning.stage_channels
    assert {stage: len(kept) for stage, kept in channels.items()} == {stage: widths[stage] for stage in channels}


@pytest.mark.parametrize(("name", "reason"), IN_PART.items())
def test_groups_that_cannot_be_cut_stay_whole_with_the_reason(name: str, reason: str) -> None:
    whole = left_whole(compress.create_backbone(name, weights="none"))
    assert any(reason in why for why in whole.values())
    slim = compress.prune(compress.create_backbone(name, weights="none"), ratio=0.5)
    assert slim.spec.pruning is not None
    assert not whole.keys() & slim.spec.pruning.kept.keys()


def test_networks_without_odd_groups_leave_nothing_whole(resnet18: Backbone) -> None:
    assert left_whole(resnet18) == {}


@pytest.mark.parametrize("name", ["nf_regnet_b0", "tresnet_m"])
def test_a_family_that_cannot_be_pruned_is_refused(name: str) -> None:
    with pytest.raises(CompressError, match=f"{name} cannot be pruned"):
        compress.prune(compress.create_backbone(name, weights="none"), ratio=0.5)


def test_a_cut_that_keeps_the_function_passes_the_check_and_wrong_channels_do_not(resnet18: Backbone) -> None:
    slim = compress.prune(resnet18, ratio=0.5)
    assert slim.spec.pruning is not None
    kept = {name: set(channels) for name, channels in slim.spec.pruning.kept.items()}
    gone = {name: set(range(2 * len(channels))) - channels for name, channels in kept.items()}
    maps = {name: set(range(2 * len(own))) - set(own) for name, own in slim.spec.pruning.stage_channels.items()}
    check_cut(resnet18, slim, outputs=gone, inputs={}, maps=maps)
    wrong = {**maps, "layer1": kept["layer1.0.conv2"]}
    with pytest.raises(CompressError, match="stage layer1 does not compute the same"):
        check_cut(resnet18, slim, outputs=gone, inputs={}, maps=wrong)


def test_a_slim_network_with_two_filters_exchanged_fails_the_check(resnet18: Backbone) -> None:
    slim = compress.prune(resnet18, ratio=0.5)
    assert slim.spec.pruning is not None
    gone = {name: set(range(2 * len(own))) - set(own) for name, own in slim.spec.pruning.kept.items()}
    maps = {name: set(range(2 * len(own))) - set(own) for name, own in slim.spec.pruning.stage_channels.items()}
    weight = slim.trunk.get_parameter("layer2.0.conv1.weight")
    with torch.no_grad():
        weight[[0, 1]] = weight[[1, 0]]
    with pytest.raises(CompressError, match="stage layer2 does not compute the same"):
        check_cut(resnet18, slim, outputs=gone, inputs={}, maps=maps)
