"""Slim backbones by timm's own `create_model`, with its own ways to name a file of weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from timm.data import resolve_model_data_config

import compress
from compress import ARCHITECTURES, CompressError
from compress.timm_models import FeatureNet, register_file

IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["resnet18", "efficientnet_lite0"])
def slim(request: pytest.FixtureRequest) -> compress.Backbone:
    return compress.prune(compress.create_backbone(request.param, weights="none", seed=4), ratio=0.5)


@pytest.fixture(scope="module")
def file(slim: compress.Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slim") / f"{slim.spec.arch}.safetensors"
    compress.save(slim, path)
    return path


def same(found: FeatureNet, slim: compress.Backbone) -> bool:
    with torch.no_grad():
        return all(map(torch.equal, found(IMAGES), slim(IMAGES)))


def test_every_architecture_has_a_name_in_timm() -> None:
    assert set(timm.list_models("prunecore_*")) >= {f"prunecore_{name}" for name in ARCHITECTURES}


def test_a_checkpoint_path_loads_a_slim_file(slim: compress.Backbone, file: Path) -> None:
    name = f"prunecore_{slim.spec.arch}"
    net = timm.create_model(name, features_only=True, checkpoint_path=file).eval()
    assert same(net, slim)
    assert net.feature_info.channels() == slim.feature_info.channels()
    early = timm.create_model(name, features_only=True, checkpoint_path=file, out_indices=(1,)).eval()
    with torch.no_grad():
        assert torch.equal(early(IMAGES)[0], slim.stage_maps(IMAGES, slim.stages[1:2])[0])


def test_timms_overlay_names_a_file_that_is_checked_whole(slim: compress.Backbone, file: Path, tmp_path: Path) -> None:
    name = f"prunecore_{slim.spec.arch}"
    net = timm.create_model(name, True, features_only=True, pretrained_cfg_overlay={"file": str(file)}, out_indices=2)
    assert net.feature_info.module_name() == list(slim.stages[-2:])
    assert net.backbone.spec.pruning is not None
    damaged = tmp_path / "damaged.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CompressError, match="changed after it was saved"):
        timm.create_model(name, True, features_only=True, pretrained_cfg_overlay={"file": str(damaged)})


def test_a_name_of_its_own_for_a_file(slim: compress.Backbone, file: Path) -> None:
    name = f"bottle_{slim.spec.arch}"
    register_file(name, file)
    assert same(timm.create_model(name, pretrained=True, features_only=True).eval(), slim)
    assert timm.create_model(name, features_only=True, out_indices=(0,)).feature_info.out_indices == (0,)
    for taken in (name, "resnet18", "not/a.name", "load_backbone"):
        with pytest.raises(CompressError, match="choose another"):
            register_file(taken, file)


def test_timm_finds_how_images_are_made(slim: compress.Backbone, file: Path) -> None:
    name = f"prunecore_{slim.spec.arch}"
    found = resolve_model_data_config(timm.create_model(name, features_only=True, checkpoint_path=file))
    assert (found["mean"], found["std"], found["input_size"]) == (slim.mean, slim.std, (3, 224, 224))
    assert timm.get_pretrained_cfg(name).mean == slim.mean


def test_a_checkpoint_of_its_own_comes_back(slim: compress.Backbone, file: Path, tmp_path: Path) -> None:
    name = f"prunecore_{slim.spec.arch}"
    net = timm.create_model(name, features_only=True, checkpoint_path=file)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    again = timm.create_model(name, features_only=True, checkpoint_path=file)
    torch.nn.init.zeros_(next(again.parameters()))
    again.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert same(again.eval(), slim)


def test_it_comes_in_training_mode_as_all_of_timms_do(slim: compress.Backbone, file: Path) -> None:
    name = f"prunecore_{slim.spec.arch}"
    overlay = {"file": str(file)}
    for net in (
        timm.create_model(name, features_only=True),
        timm.create_model(name, features_only=True, checkpoint_path=file, num_classes=0),
        timm.create_model(name, True, features_only=True, pretrained_cfg_overlay=overlay),
    ):
        assert all(module.training for module in net.modules())
    net.eval().load_state_dict(load_file(file))
    assert not any(module.training for module in net.modules())


def test_a_checkpoint_of_its_own_fits_a_dense_one_by_timms_path(
    slim: compress.Backbone, file: Path, tmp_path: Path
) -> None:
    """As programs resume that know a name and a file alone."""
    name = f"prunecore_{slim.spec.arch}"
    torch.save(timm.create_model(name, features_only=True, checkpoint_path=file).state_dict(), tmp_path / "net.pt")
    assert same(timm.create_model(name, features_only=True, checkpoint_path=tmp_path / "net.pt").eval(), slim)


def test_an_optimizer_still_trains_what_a_checkpoint_came_back_into(slim: compress.Backbone, file: Path) -> None:
    net = timm.create_model(f"prunecore_{slim.spec.arch}", features_only=True, checkpoint_path=file)
    before = list(net.parameters())
    for state in (copy.deepcopy(net.state_dict()), load_file(file)):
        torch.nn.init.zeros_(before[0])
        net.train().load_state_dict(state)
        assert all(own is other for own, other in zip(net.parameters(), before, strict=True))
        assert same(net.eval(), slim)


def test_what_is_past_the_taps_may_be_in_the_file_and_another_network_may_not(tmp_path: Path) -> None:
    whole = torchvision.models.resnet18(weights=None)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    net = timm.create_model("prunecore_resnet18", features_only=True, checkpoint_path=tmp_path / "whole.safetensors")
    assert torch.equal(net.backbone.trunk.get_parameter("conv1.weight"), whole.conv1.weight)
    deeper = compress.create_backbone("resnet34", weights="none", taps=("layer3",))
    compress.save(deeper, tmp_path / "resnet34.safetensors")
    with pytest.raises(CompressError, match=r"are not its own \(layer1\.2\..*another network"):
        timm.create_model("prunecore_resnet18", features_only=True, checkpoint_path=tmp_path / "resnet34.safetensors")


def test_what_timm_asks_for_and_cannot_have_is_refused(slim: compress.Backbone, file: Path) -> None:
    name = f"prunecore_{slim.spec.arch}"
    with pytest.raises(CompressError, match="features_only=True"):
        timm.create_model(name)
    with pytest.raises(CompressError, match="in_chans=3"):
        timm.create_model(name, features_only=True, in_chans=1)
    with pytest.raises(CompressError, match="no weights of its own"):
        timm.create_model(name, pretrained=True, features_only=True)
    overlay = {"file": str(file)}
    with pytest.raises(CompressError, match="create prunecore_"):
        timm.create_model("prunecore_resnet34", True, features_only=True, pretrained_cfg_overlay=overlay)
    with pytest.raises(CompressError, match="do not make a"):
        timm.create_model(name, features_only=True, checkpoint_path=file, out_indices=(4,))
