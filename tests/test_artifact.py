"""The artifact: bit-for-bit round trips, and one clear error for every way a file can be wrong."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import full_disk
from networks import same
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import compress
from compress import ARCHITECTURES, CompressError, files
from compress import artifact as artifact_module
from pipelines.detector_file import load_detector

IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def slim() -> compress.Backbone:
    return compress.prune(compress.create_backbone("mobilenet_v3_small", weights="none"), ratio=0.5)


@pytest.fixture
def file(slim: compress.Backbone, tmp_path: Path) -> Path:
    path = tmp_path / "slim.safetensors"
    compress.save(slim, path)
    return path


@pytest.mark.parametrize("name", [*ARCHITECTURES, "regnety_002", "densenet121"])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_what_is_loaded_is_what_was_saved(name: str, ratio: float, tmp_path: Path) -> None:
    backbone = compress.create_backbone(name, weights="none", seed=3)
    if ratio:
        backbone = compress.prune(backbone, ratio=ratio)
    compress.save(backbone, tmp_path / "it.safetensors")
    loaded = compress.load_backbone(tmp_path / "it.safetensors")
    with torch.no_grad():
        for saved, read in zip(backbone(IMAGES), loaded(IMAGES), strict=True):
            assert torch.equal(saved, read)
    assert compress.cost_of(loaded) == compress.cost_of(backbone)
    assert loaded.spec == backbone.spec
    assert not loaded.training


def test_two_saves_are_the_same_bytes(slim: compress.Backbone, tmp_path: Path) -> None:
    """safetensors writes the three keys of the header in an order that is drawn anew each time."""
    saved = [_saved(slim, tmp_path / f"{count}.safetensors") for count in range(12)]
    assert len({file.read_bytes() for file in saved}) == 1
    assert same(compress.load_backbone(saved[0]), slim)
    assert load_file(saved[0]).keys() == slim.trunk.state_dict().keys()


def test_whatever_a_header_says_is_written_in_order(tmp_path: Path) -> None:
    header = {"z": 'say "ü"\n\t\x7f\x01\\/', "a": "\u2028 \U0001f600", "m": ""}
    tensors = {"b": torch.arange(3.0), "a": torch.ones(5, dtype=torch.float16)}
    written = set()
    for _ in range(12):
        files.atomic_save(tmp_path / "it.safetensors", tensors, header)
        written.add((tmp_path / "it.safetensors").read_bytes())
    assert len(written) == 1
    found, read = files.read_saved(tmp_path / "it.safetensors")
    assert found == header
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_the_file_speaks_of_itself_without_our_code(file: Path) -> None:
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
        names = set(opened.keys())
    description = json.loads(header["backbone"])
    assert header["format"] == "prunecore/1"
    assert description["arch"] == "mobilenet_v3_small"
    assert description["factory"] == "torchvision"
    assert description["pruning"]["method"] == "magnitude"
    assert description["versions"]["torch"] == torch.__version__.split("+")[0]
    assert len(description["pruning"]["kept"]["features.0.0"]) == 8
    assert "features.0.0.weight" in names  # the parent's own names


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
def test_a_truncated_file_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CompressError, match=r"slim\.safetensors is truncated"):
        compress.load_backbone(file)


def test_a_changed_tensor_is_noticed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(CompressError, match="was changed after it was saved"):
        compress.load_backbone(file)


def test_a_changed_description_is_noticed(file: Path) -> None:
    _rewrite(file, lambda d: d.update(arch="mobilenet_v3_large"), sign=False)
    with pytest.raises(CompressError, match="was changed after it was saved"):
        compress.load_backbone(file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(arch="mobilenet_v3_large"), "no slimming|do not make|belongs to another"),
        (lambda d: d.update(arch="os.system"), "unknown architecture"),
        (lambda d: d.update(taps=["features.99"]), "no stage"),
        (lambda d: d.update(taps=[]), "no taps"),
        (lambda d: d.update(std=[0, 0, 0]), "unreadable description"),
        (lambda d: d.update(size=-3), "unreadable description"),
        (lambda d: d.update(size=float("inf")), "unreadable description"),
        (lambda d: d.update(mean=[float("nan"), 0, 0]), "unreadable description"),
        (lambda d: d["weights"].update(source={}), "unreadable description"),
        (lambda d: d["pruning"].update(kept=5), "unreadable description"),
        (lambda d: d["pruning"].update(kept={"foreign": [1]}), "unreadable description"),
        (lambda d: d["pruning"]["kept"].update({"features.0.0": [1, 2]}), "unreadable description"),
        (lambda d: d["pruning"]["kept"].update({"features.0.0": 7}), "unreadable description"),
        (lambda d: d["pruning"].update(ratio="abc"), "unreadable description"),
        (lambda d: d["pruning"].update(ratio=5), "unreadable description"),
        (lambda d: d["pruning"].update(method={}), "unreadable description"),
        (lambda d: d["pruning"].update(tail_shapes={"classifier.0.weight": "ab"}), "unreadable description"),
        (lambda d: d["pruning"].update(tail_shapes={"classifier.0.weight": [3, 3]}), "do not fit together"),
        (lambda d: d.pop("mean"), "unreadable description"),
        (lambda d: d["pruning"].update(surprise=1), "unreadable description"),
        (lambda d: d["pruning"].update(tail_shapes={"classifier.0.weight": [10**9, 10**9]}), "no slimming"),
    ],
)
def test_a_signed_but_absurd_description_is_refused(file: Path, edit: Any, message: str) -> None:
    """The checksum guards against accidents, not intent: the content is checked too."""
    _rewrite(file, edit, sign=True)
    with pytest.raises(CompressError, match=message):
        compress.cost_of(compress.load_backbone(file))


def test_half_precision_is_saved_and_a_type_of_no_backbone_refused(slim: compress.Backbone, tmp_path: Path) -> None:
    half = compress.load_backbone(_saved(slim, tmp_path / "full.safetensors")).to(torch.bfloat16)
    compress.save(half, tmp_path / "half.safetensors")
    weight = load_file(tmp_path / "half.safetensors")["features.0.0.weight"]
    assert weight.dtype is torch.bfloat16
    loaded = compress.load_backbone(tmp_path / "half.safetensors").trunk.get_parameter("features.0.0.weight")
    assert torch.equal(loaded, weight.float())
    file = tmp_path / "full.safetensors"
    tensors = {name: tensor.to(torch.complex64) for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata=_header(file))
    with pytest.raises(CompressError, match=r"complex64, which no backbone"):
        compress.load_backbone(file)


def _saved(backbone: compress.Backbone, file: Path) -> Path:
    compress.save(backbone, file)
    return file


def test_a_full_disk_is_one_clear_error(slim: compress.Backbone, tmp_path: Path) -> None:
    with full_disk(), pytest.raises(CompressError, match=r"cannot write .*slim\.safetensors"):
        compress.save(slim, tmp_path / "slim.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_pipe_is_no_place_for_an_artifact(slim: compress.Backbone, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CompressError, match="a device or a pipe"):
        compress.save(slim, tmp_path / "pipe")


@pytest.mark.parametrize(
    "read",
    [
        compress.load_backbone,
        compress.load_onnx,
        load_detector,
        lambda file: compress.create_backbone("mobilenet_v3_small", weights=file),
    ],
)
def test_a_pipe_is_no_model_and_nobody_waits_for_it(read: Callable[[str], object], tmp_path: Path) -> None:
    pipe = tmp_path / "model.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(CompressError, match=r"^(?!no such file).*model\.safetensors is a pipe: name a file"):
        read(str(pipe))


def test_a_name_that_is_too_long_is_told() -> None:
    with pytest.raises(CompressError, match=r"cannot read x.*File name too long"):
        compress.load_backbone("x" * 300)


def test_a_foreign_safetensors_file_is_refused_with_the_way_to_use_it(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(CompressError, match=r"no prunecore artifact.*--weights"):
        compress.load_backbone(tmp_path / "plain.safetensors")


def test_a_newer_format_says_upgrade(file: Path) -> None:
    tensors, header = load_file(file), _header(file)
    save_file(tensors, file, metadata={**header, "format": "prunecore/2"})
    with pytest.raises(CompressError, match=r"prunecore/2.*upgrade"):
        compress.load_backbone(file)


@pytest.mark.parametrize(
    ("name", "message"), [("missing.safetensors", "no such file"), (".", "is a folder: name a file")]
)
def test_no_file_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CompressError, match=message):
        compress.load_backbone(tmp_path / name)


def test_an_unwritable_place_is_refused(slim: compress.Backbone, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="does not exist; create it"):
        compress.save(slim, tmp_path / "nowhere" / "slim.safetensors")
    with pytest.raises(CompressError, match="it is a folder"):
        compress.save(slim, tmp_path)


def test_a_failed_save_leaves_the_old_file_and_no_rest(
    slim: compress.Backbone, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises(CompressError, match="No space left on device"):
        compress.save(slim, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def _header(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())


def _rewrite(file: Path, edit: Any, *, sign: bool) -> None:
    tensors, header = load_file(file), _header(file)
    description = json.loads(header["backbone"])
    edit(description)
    header["backbone"] = json.dumps(description, sort_keys=True)
    if sign:
        header["sha256"] = artifact_module._digest(header["backbone"], tensors)
    save_file(tensors, file, metadata=header)


def test_a_description_with_a_large_image_takes_no_memory_to_read(file: Path) -> None:
    """A network run on 4096 x 4096 pixels would take gigabytes."""
    _rewrite(file, lambda d: d.update(size=4096), sign=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = compress.load_backbone(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert loaded.feature_info.reduction() == [8, 16]


def test_tensors_that_are_missing_or_foreign_are_named(file: Path) -> None:
    header, tensors = _header(file), load_file(file)
    tensors["surprise"] = tensors.pop("features.0.0.weight")
    del (description := json.loads(header["backbone"]))["pruning"]["kept"]["features.0.0"]
    header["backbone"] = json.dumps(description, sort_keys=True)
    header["sha256"] = artifact_module._digest(header["backbone"], tensors)
    save_file(tensors, file, metadata=header)
    with pytest.raises(
        CompressError, match=r"1 are missing \(features\.0\.0\.weight\), 1 are not its own \(surprise\)"
    ):
        compress.load_backbone(file)


def test_what_a_file_says_cannot_move_the_terminals_cursor(file: Path) -> None:
    save_file(load_file(file), file, metadata={**_header(file), "format": "prunecore/\x1b[2J\n2"})
    with pytest.raises(CompressError) as refused:
        compress.load_backbone(file)
    assert r"has format prunecore/\x1b[2J 2, this version" in str(refused.value)
