"""`feature_info` and `out_indices` behave as in timm's `features_only` networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

import compress

KEYS = ["num_chs", "reduction", "module", "index"]  # those that all of timm's networks have
IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("out_indices", [(2, 3), (0, 2), (1,), (-2, -1), 2])
@pytest.mark.parametrize(
    ("name", "model"), [("efficientnet_lite0", "tf_efficientnet_lite0"), ("regnety_002", "regnety_002")]
)
def test_equal_to_timm(name: str, model: str, out_indices: tuple[int, ...] | int, tmp_path: Path) -> None:
    """The whole network down to its last stage is in the file, so that the numbers are timm's."""
    stages = timm.create_model(model, features_only=True).feature_info.module_name()
    compress.save(compress.create_backbone(name, weights="none", taps=stages), tmp_path / "dense.safetensors")
    own = compress.load_backbone(tmp_path / "dense.safetensors", out_indices=out_indices)
    reference = timm.create_model(model, features_only=True, out_indices=out_indices).eval()
    theirs = reference.feature_info
    assert own.feature_info.channels() == theirs.channels()
    assert own.feature_info.reduction() == theirs.reduction()
    assert own.feature_info.module_name() == theirs.module_name()
    assert own.feature_info.get_dicts(KEYS) == theirs.get_dicts(KEYS)
    assert own.feature_info.out_indices == tuple(index % len(theirs) for index in theirs.out_indices)
    for idx in (0, [0, 1]):
        assert own.feature_info.channels(idx) == theirs.channels(idx)
        assert own.feature_info.reduction(idx) == theirs.reduction(idx)
        assert own.feature_info.module_name(idx) == theirs.module_name(idx)
        assert own.feature_info.get_dicts(KEYS, idx) == theirs.get_dicts(KEYS, idx)
        assert own.feature_info.get("num_chs", idx) == theirs.get("num_chs", idx)
    assert own.feature_info[1]["module"] == theirs[1]["module"]
    with torch.no_grad():
        found, expected = own(IMAGES), reference(IMAGES)
    assert [each.shape for each in found] == [each.shape for each in expected]


def test_torchvisions_resnets_are_numbered_as_timms() -> None:
    own = compress.create_backbone("resnet18", weights="none", taps=("layer4",)).feature_info
    theirs = timm.create_model("resnet18", features_only=True).feature_info
    assert own.channels(range(5)) == theirs.channels()
    assert own.reduction(range(5)) == theirs.reduction()
    assert own.module_name(range(1, 5)) == theirs.module_name()[1:]  # the first is relu there, act1 here


def test_what_is_handed_out_changes_nothing(resnet18: compress.Backbone) -> None:
    resnet18.feature_info.get_dicts()[0]["num_chs"] = 1
    assert resnet18.feature_info.channels() == [128, 256]
