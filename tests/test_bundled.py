"""Bundled weights: how they are written and read, and whether what ships is fit to be pruned."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from full_disk import full_disk
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

import compress
from compress import ARCHITECTURES, CompressError
from compress.weights import bundled
from compress.weights.bundled import Card, bundled_archs, card_of, write_bundled
from pipelines.cli import app
from pipelines.pretraining import PretrainingRecipe

ARCH = "mobilenet_v3_small"
CARD = Card(ARCH, "a teacher", "make it", "0" * 64)
SHIPPED = bundled_archs()
LIMIT = 9_000_000  # bytes of all files together
DEAD = 0.2  # share of the channels of a layer; ResNet-18's official first layer has 0.125
SPREAD = 0.03  # least standard deviation over mean; official layers have 0.08 and more, untrained norms 0


def complaints(state: dict[str, Tensor]) -> list[str]:
    """What would leave a pruning method nothing to rank, or rank noise: see docs/bundled_weights.md.

    Read off the tensors alone: a layer with a running mean is a batch norm; filters are those of convolutions.
    """
    found = [f"{name} is not finite" for name, tensor in state.items() if not tensor.isfinite().all()]
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        if f"{layer}.running_mean" in state and kind == "weight":
            size = tensor.abs()
            if (dead := float((size < 0.01 * size.median()).float().mean())) > DEAD:
                found.append(f"{layer}: {dead:.0%} of the scales are next to 0")
            if float(size.max()) < 1e-3:
                found.append(f"{layer}: all scales are next to 0")
            if float(size.std() / size.mean()) < SPREAD:
                found.append(f"{layer}: scales hardly differ")
            if float(state[f"{layer}.running_var"].min()) < 0:
                found.append(f"{layer}: a variance is negative")
        elif tensor.ndim == 4:
            norm = tensor.flatten(1).norm(dim=1)
            if (dead := float((norm < 0.01 * norm.median()).float().mean())) > DEAD:
                found.append(f"{layer}: {dead:.0%} of the filters are next to 0")
            if float(norm.std() / norm.mean()) < SPREAD:
                found.append(f"{layer}: norms of filters hardly differ")
    return found


@pytest.mark.parametrize("arch", SHIPPED)
def test_what_ships_is_fit_to_be_pruned(arch: str) -> None:
    assert complaints({name: tensor.float() for name, tensor in load_file(_shipped(arch)).items()}) == []


@pytest.mark.parametrize("arch", SHIPPED)
def test_what_ships_covers_the_taps_in_half_precision_and_tells_what_it_is(arch: str) -> None:
    backbone = compress.create_backbone(arch, weights="bundled")
    assert backbone.spec.weights.source == "bundled"
    assert {tensor.dtype for tensor in load_file(_shipped(arch)).values()} == {torch.float16}
    card = card_of(arch)
    assert card.arch == arch
    assert card.teacher
    assert len(card.teacher_sha256) == 64
    assert card.recipe_sha256 == PretrainingRecipe.read(arch).sha256  # the recipe is as it was followed
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert all(feature_map.isfinite().all() and feature_map.std() > 0 for feature_map in maps)


def test_what_ships_is_small_and_of_registered_architectures() -> None:
    assert sum(_shipped(arch).stat().st_size for arch in SHIPPED) <= LIMIT
    assert set(SHIPPED) == {"resnet18", "mobilenet_v3_small"} <= set(ARCHITECTURES)


def _shipped(arch: str) -> Path:
    return bundled.FOLDER / f"{arch}.safetensors"


def test_trained_weights_pass_and_sick_ones_are_named() -> None:
    healthy = compress.create_backbone("efficientnet_lite0", weights="offline").trunk.state_dict()
    assert complaints(healthy) == []
    conv, norm = "blocks.1.0.conv_pw", "blocks.1.0.bn1"
    width = healthy[f"{norm}.weight"].numel()
    spared = torch.arange(width) % 4 > 0
    cases = {
        f"{conv}.weight": [
            (healthy[f"{conv}.weight"] * float("nan"), "is not finite"),
            (healthy[f"{conv}.weight"] * spared[:, None, None, None], "of the filters are next to 0"),
            (torch.ones_like(healthy[f"{conv}.weight"]), "norms of filters hardly differ"),
        ],
        f"{norm}.weight": [
            (healthy[f"{norm}.weight"] * spared, "of the scales are next to 0"),
            (healthy[f"{norm}.weight"] * 1e-9, "all scales are next to 0"),
            (torch.ones(width), "scales hardly differ"),
        ],
    }
    for name, sick in cases.items():
        for tensor, complaint in sick:
            assert any(complaint in line for line in complaints({**healthy, name: tensor})), complaint


def test_a_file_is_half_precision_and_loads_as_float(bundled_stand_in: Path) -> None:
    state = compress.create_backbone(ARCH, weights="none", seed=5).trunk.state_dict()
    stored = load_file(bundled_stand_in / f"{ARCH}.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert not any(name.endswith("num_batches_tracked") for name in stored)
    backbone = compress.create_backbone(ARCH, weights="bundled")
    name = "features.8.block.0.0.weight"
    loaded = backbone.trunk.get_parameter(name)
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, state[name].half().float())
    with pytest.raises(CompressError, match=r"weights bundled lack .* up to the last tap: features\.9"):
        compress.create_backbone(ARCH, weights="bundled", taps=("features.3", "features.9"))


def test_rounding_moves_a_map_by_less_than_a_thousandth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    exact = compress.create_backbone("resnet18", weights="none", seed=1)
    write_bundled(tmp_path / "resnet18.safetensors", exact.trunk.state_dict(), replace(CARD, arch="resnet18"))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = zip(exact(images), compress.create_backbone("resnet18", weights="bundled")(images), strict=True)
        errors = [float((ours - own).norm() / own.norm()) for own, ours in maps]
    assert 0 < max(errors) < 1e-3


def test_the_card_is_read_back_and_a_corrected_one_is_no_other_network(bundled_stand_in: Path) -> None:
    before = compress.create_backbone(ARCH, weights="bundled").spec.weights
    assert card_of(ARCH).cost == "image AUROC on magnetic_tile 0.912, with the official ones 0.950"
    file = bundled_stand_in / f"{ARCH}.safetensors"
    write_bundled(file, load_file(file), CARD)
    assert card_of(ARCH) == CARD
    assert "not measured" in CARD.cost
    assert compress.create_backbone(ARCH, weights="bundled").spec.weights == before


@pytest.mark.parametrize("damage", ["no card", "one bit", "renamed", "cut off"])
def test_what_is_not_as_it_shipped_is_told_with_the_cure(bundled_stand_in: Path, damage: str) -> None:
    file, arch = bundled_stand_in / f"{ARCH}.safetensors", ARCH
    whole = file.read_bytes()
    if damage == "no card":
        save_file({"a": torch.zeros(1)}, file)
    elif damage == "one bit":
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "renamed":
        arch = "mobilenet_v3_large"
        file.rename(bundled_stand_in / f"{arch}.safetensors")
    else:
        file.write_bytes(whole[:-100])
    for read in (card_of, partial(compress.create_backbone, weights="bundled")):
        with pytest.raises(CompressError, match=r"is not what was shipped .*install prunecore again"):
            read(arch)


def test_an_architecture_without_bundled_weights_is_refused_with_those_that_have(bundled_stand_in: Path) -> None:
    with pytest.raises(CompressError, match=f"bundled exists for {ARCH}, not for resnet34: choose one"):
        compress.create_backbone("resnet34", weights="bundled")


def test_values_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"conv\.weight has values up to 7e\+04"):
        write_bundled(tmp_path / "a.safetensors", {"conv.weight": torch.tensor([7e4])}, CARD)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(CompressError, match=r"cannot write .*a\.safetensors"):
        write_bundled(tmp_path / "a.safetensors", {"conv.weight": torch.zeros(1000)}, CARD)
    assert not list(tmp_path.iterdir())


def test_the_list_of_backbones_tells_whose_weights_there_are(bundled_stand_in: Path) -> None:
    listed = json.loads(CliRunner().invoke(app, ["backbones", "--json"]).stdout)
    weights = {entry["name"]: entry["pretrained weights"] for entry in listed}
    assert weights[ARCH] == "imagenet, bundled"
    assert weights["resnet34"] == "imagenet"
    assert weights["efficientnet_lite0"] == "imagenet, offline"
