"""Dense backbones: every registered architecture, what they return, and that nothing past the last tap runs."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import compress
from compress import ARCHITECTURES, CompressError
from compress.backbone import whole_network

IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*ARCHITECTURES, "regnety_002", "densenet121", "convnext_atto"])
def test_maps_are_what_feature_info_says(name: str) -> None:
    backbone = compress.create_backbone(name, weights="none")
    with torch.no_grad():
        maps = backbone(IMAGES)
    assert [feature_map.shape[1] for feature_map in maps] == backbone.feature_info.channels()
    assert [96 // feature_map.shape[-1] for feature_map in maps] == backbone.feature_info.reduction() == [8, 16]
    assert backbone.feature_info.module_name() == list(backbone.spec.taps)
    assert not backbone.training


@pytest.mark.parametrize("name", [n for n, a in ARCHITECTURES.items() if a.factory_name == "torchvision"])
def test_maps_equal_those_inside_torchvisions_own_network(name: str) -> None:
    backbone = compress.create_backbone(name, weights="none", seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        reference = torchvision.models.get_model(name, weights=None).eval()
    seen: dict[str, Tensor] = {}
    for tap in backbone.spec.taps:
        reference.get_submodule(tap).register_forward_hook(
            lambda module, inputs, output, tap=tap: seen.__setitem__(tap, output.clone())
        )
    with torch.no_grad():
        reference(IMAGES)
        maps = backbone(IMAGES)
    for tap, feature_map in zip(backbone.spec.taps, maps, strict=True):
        assert torch.equal(seen[tap], feature_map)


def test_maps_equal_timms_features_only() -> None:
    backbone = compress.create_backbone("efficientnet_lite0", weights="none", seed=5)
    reference = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3)).eval()
    reference.load_state_dict({**reference.state_dict(), **backbone.trunk.state_dict()})
    with torch.no_grad():
        for own, theirs in zip(backbone(IMAGES), reference(IMAGES), strict=True):
            assert torch.equal(own, theirs)
    assert backbone.feature_info.channels() == reference.feature_info.channels()
    assert backbone.feature_info.reduction() == reference.feature_info.reduction()


def test_nothing_past_the_last_tap_is_there(resnet18: compress.Backbone) -> None:
    names = {name.split(".")[0] for name in resnet18.trunk.state_dict()}
    assert names == {"conv1", "bn1", "layer1", "layer2", "layer3"}


def test_taps_come_back_shallow_first_whatever_the_order_given() -> None:
    backbone = compress.create_backbone("resnet18", weights="none", taps=("layer4", "layer1"))
    assert backbone.spec.taps == ("layer1", "layer4")
    assert backbone.feature_info.channels() == [64, 512]
    assert backbone.feature_info.reduction() == [4, 32]


def test_an_unknown_tap_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CompressError, match=r"no stage 'layer9'.*layer1, layer2"):
        compress.create_backbone("resnet18", weights="none", taps=("layer9",))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "did you mean .*resnet"),
        ("../resnet18", "unknown architecture"),
        ("hf-hub:someone/model", "unknown architecture"),
        ("vit_tiny_patch16_224", "choose"),
    ],
)
def test_names_that_are_no_convolutional_network_are_refused(name: str, message: str) -> None:
    with pytest.raises(CompressError, match=message):
        compress.create_backbone(name, weights="none")


@pytest.mark.parametrize(
    ("name", "weights"), [("resnet18", "none"), ("efficientnet_lite0", "offline"), ("regnety_004", "none")]
)
def test_building_leaves_the_callers_random_state_alone(name: str, weights: str) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    compress.create_backbone(name, weights=weights, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_the_seed_decides_the_random_weights() -> None:
    first, again, other = (compress.create_backbone("resnet18", weights="none", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.trunk.conv1.weight, again.trunk.conv1.weight)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(first.trunk.conv1.weight, other.trunk.conv1.weight)  # type: ignore[union-attr,arg-type]


def test_a_backbone_is_a_plain_module(resnet18: compress.Backbone) -> None:
    twin = copy.deepcopy(resnet18)
    half = copy.deepcopy(resnet18).to(torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(twin(IMAGES)[1], resnet18(IMAGES)[1])
        assert half(IMAGES.to(torch.bfloat16))[0].dtype is torch.bfloat16
    exported = torch.export.export(twin, (IMAGES,)).module()
    assert torch.allclose(exported(IMAGES)[1], resnet18(IMAGES)[1], atol=1e-5)


def test_the_whole_network_runs_on_the_trunks_weights(resnet18: compress.Backbone) -> None:
    whole = whole_network(resnet18)
    assert isinstance(whole, nn.Module)
    assert torch.equal(whole.layer3[0].conv1.weight, resnet18.trunk.get_parameter("layer3.0.conv1.weight"))  # type: ignore[index,union-attr]
    assert whole(IMAGES).shape == (2, 1000)
