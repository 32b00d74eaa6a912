"""Files of weights: what loads, what is refused and with which words."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

import compress
from compress import CompressError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return torchvision.models.resnet18(weights=None).state_dict()


def _without_tail(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(("layer4", "fc"))}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("partial", [False, True])
def test_a_file_that_covers_the_taps_loads(state: State, tmp_path: Path, suffix: str, partial: bool) -> None:
    file = tmp_path / f"weights{suffix}"
    tensors = _without_tail(state) if partial else state
    save_file(tensors, file) if suffix == ".safetensors" else torch.save(tensors, file)
    backbone = compress.create_backbone("resnet18", weights=str(file))
    assert torch.equal(backbone.trunk.get_parameter("layer3.1.conv2.weight"), state["layer3.1.conv2.weight"])
    assert backbone.spec.weights.source == file.name
    assert len(backbone.spec.weights.sha256 or "") == 64


def test_a_training_checkpoint_is_unwrapped(state: State, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth")
    backbone = compress.create_backbone("resnet18", weights=str(tmp_path / "checkpoint.pth"))
    assert torch.equal(backbone.trunk.get_parameter("conv1.weight"), state["conv1.weight"])


def test_a_file_that_ends_before_the_last_tap_is_refused_with_what_is_missing(state: State, tmp_path: Path) -> None:
    short = {name: tensor for name, tensor in state.items() if not name.startswith(("layer3", "layer4", "fc"))}
    save_file(short, tmp_path / "short.safetensors")
    with pytest.raises(CompressError, match=r"lack 25 of 75 tensors.*layer3\.0\.conv1\.weight"):
        compress.create_backbone("resnet18", weights=str(tmp_path / "short.safetensors"))


def test_another_architectures_weights_are_refused(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "resnet18.safetensors")
    with pytest.raises(CompressError, match="lack"):
        compress.create_backbone("mobilenet_v3_small", weights=str(tmp_path / "resnet18.safetensors"))
    save_file({**state, "conv1.weight": torch.zeros(32, 3, 7, 7)}, tmp_path / "thin.safetensors")
    with pytest.raises(CompressError, match=r"conv1\.weight \[32, 3, 7, 7\] instead of \[64, 3, 7, 7\]"):
        compress.create_backbone("resnet18", weights=str(tmp_path / "thin.safetensors"))


def test_a_counter_of_another_shape_is_refused_as_any_tensor(state: State, tmp_path: Path) -> None:
    save_file({**state, "bn1.num_batches_tracked": torch.zeros(0)}, tmp_path / "odd.safetensors")
    with pytest.raises(CompressError, match=r"bn1\.num_batches_tracked \[0\] instead of \[\]"):
        compress.create_backbone("resnet18", weights=str(tmp_path / "odd.safetensors"))


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(_Bomb()))
    torch.save({"conv1.weight": _Bomb()}, tmp_path / "zip-bomb.pth")
    for name in ("bomb.pth", "zip-bomb.pth"):
        with pytest.raises(CompressError, match=name):
            compress.create_backbone("resnet18", weights=str(tmp_path / name))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "odd"),
    [
        ("sparse", lambda tensor: tensor.to_sparse()),
        ("meta", lambda tensor: tensor.to("meta")),
        ("qint8", lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)),
        ("complex64", lambda tensor: tensor.to(torch.complex64)),
    ],
)
def test_tensors_that_no_network_can_hold_are_refused_by_name(
    state: State, tmp_path: Path, kind: str, odd: Callable[[Tensor], Tensor]
) -> None:
    torch.save({**state, "conv1.weight": odd(state["conv1.weight"])}, tmp_path / "odd.pth")
    with pytest.raises(CompressError, match=rf"odd\.pth: conv1\.weight is no plain tensor.*{kind}"):
        compress.create_backbone("resnet18", weights=str(tmp_path / "odd.pth"))


class _Bytes:
    """Pickled as the request for a bytearray of so many bytes, which PyTorch's safe reader grants."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return bytearray, (self.length,)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_small_file_that_would_take_gigabytes_is_refused_before_it_does(tmp_path: Path, zipped: bool) -> None:
    torch.save({"x": _Bytes(10**15)}, tmp_path / "bytes.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CompressError, match="holds a bytearray, which is no tensor"):
        compress.create_backbone("resnet18", weights=str(tmp_path / "bytes.pth"))


def test_a_packed_checkpoint_is_refused_unpacked_by_nobody(state: State, tmp_path: Path) -> None:
    torch.save(_without_tail(state), tmp_path / "whole.pth")
    bomb = zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, bomb as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(CompressError, match="holds compressed parts, which PyTorch never writes"):
        compress.create_backbone("resnet18", weights=str(tmp_path / "packed.pth"))


def test_names_without_end_are_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "names.safetensors"
    header = b'{"__metadata__":{}' + b" " * 10_000_000 + b"}"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CompressError, match=r"its header has 10000019 bytes, the limit is 10000000"):
        compress.create_backbone("resnet18", weights=str(file))
    with pytest.raises(CompressError, match=r"names\.safetensors is truncated, damaged.*the limit is 10000000"):
        compress.load_backbone(file)


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\x80", b"not weights at all, but long enough to look"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CompressError, match=name):
        compress.create_backbone("resnet18", weights=str(tmp_path / name))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("nowhere.safetensors", "no such file: nowhere.safetensors"),
        (f"{'x' * 300}.safetensors", "cannot read x.*File name too long"),
        ("imagnet", "use auto, local, imagenet, bundled"),
        ("offline", "efficientnet_lite0 alone"),
    ],
)
def test_words_for_weights_that_do_not_exist(weights: str, message: str) -> None:
    with pytest.raises(CompressError, match=message):
        compress.create_backbone("resnet18", weights=weights)


def test_offline_weights_are_pretrained() -> None:
    backbone = compress.create_backbone("efficientnet_lite0", weights="offline")
    assert backbone.spec.weights.source == "offline"
    # Trained batch norms: no running mean is still the 0 that it began with.
    assert (backbone.trunk.get_buffer("blocks.4.2.bn3.running_mean") != 0).all()
