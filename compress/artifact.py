"""The artifact: a backbone as one `.safetensors` file that tells how to rebuild it. No pickle, no code.

The header holds the format, a JSON description, and the SHA-256 of both description and tensors,
so that an edited file is told from a whole one. The tensors bear the parent architecture's names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from compress.architectures import rgb
from compress.backbone import UNPRUNED, Backbone, BackboneSpec, Pruning, assemble, tapped_at
from compress.errors import CompressError
from compress.files import atomic_save, read_saved
from compress.networks.constructor_factory import Constructor
from compress.weights import WeightsOrigin

FORMAT = "prunecore/1"
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError)
_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64)
_PACKAGES = ("prunecore", "torch", "torchvision", "timm", "torch-pruning")


def save(backbone: Backbone, path: str | os.PathLike[str]) -> None:
    """Write `backbone` to `path`, whole or not at all.

    Raises:
        CompressError: `path` cannot be written, or what holds a backbone is given instead of it.
    """
    if not isinstance(backbone, Backbone):
        raise CompressError(
            f"a {type(backbone).__name__} is no Backbone: save the one in it, such as net.backbone or net.module"
        )
    header, state = _contents(backbone)
    atomic_save(path, state, header)


def load_backbone(
    path: str | os.PathLike[str],
    *,
    out_indices: int | Sequence[int] | None = None,
    constructor: Constructor | None = None,
) -> Backbone:
    """The backbone in `path`, in evaluation mode and float32, its outputs equal bit for bit to the saved one's.

    Weights that were saved in half precision become float32 too: call `.half()` or `.bfloat16()` on the result.
    Needs torch, safetensors and the package that the parent came from (torchvision or timm), and imports no other.

    Args:
        out_indices: stages to return the maps of instead of the file's taps, as in timm's `features_only`: numbers of
            stages in `feature_info`, from the end where negative, or how many of the last ones.
        constructor: for a network of the user's own, what builds its dense parent; the file has its name as a text
            that nothing is imported by.

    Raises:
        CompressError: the file is missing, truncated, edited, foreign, or of a newer format, or has no such stage;
            or a constructor is missing, not needed, or builds another network.
    """
    file = Path(path)
    header, state = _read(file)
    _refuse_odd_types(file, state)
    found = header.get("format", "")
    if not found.startswith("prunecore/"):
        raise CompressError(
            f"{file} is no prunecore artifact: plain weights are given with --arch NAME --weights {file}"
        )
    if found != FORMAT:
        raise CompressError(f"{file} has format {found}, this version reads {FORMAT}: upgrade prunecore")
    description = header.get("backbone", "")
    if header.get("sha256") != _digest(description, state):
        raise CompressError(f"{file} was changed after it was saved (its checksum is wrong): get it again")
    try:
        spec = parse_spec(json.loads(description))
        _require_widths(spec, state)
    except UNREADABLE as error:
        raise CompressError(f"{file} has an unreadable description ({type(error).__name__}: {error})") from error
    if constructor is not None and spec.is_registered:
        raise CompressError(f"{file} holds a {spec.arch}, which needs no constructor: leave it out")
    try:
        backbone = assemble(dataclasses.replace(spec, constructor=constructor), state)
        return backbone if out_indices is None else tapped_at(backbone, out_indices)
    except CompressError as error:
        raise CompressError(f"{file}: {error}") from error


def artifact_bytes(backbone: Backbone) -> int:
    """Size of the file that `save` makes of `backbone`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "backbone.safetensors")
        save(backbone, file)
        return file.stat().st_size


def digest_of(backbone: Backbone) -> str:
    """The SHA-256 that the file of `backbone` tells, of its description and its tensors."""
    return _contents(backbone)[0]["sha256"]


def digest_of_tensors(backbone: Backbone) -> str:
    """A SHA-256 of the tensors of `backbone`, which other versions of the packages do not change."""
    return _digest("", _state(backbone))


def versions() -> dict[str, str]:
    """The versions that a result depends on, by distribution."""
    return {name: version(name) for name in _PACKAGES}


def _contents(backbone: Backbone) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors of its file."""
    state = _state(backbone)
    description = json.dumps(describe(backbone.spec), sort_keys=True)
    return {"format": FORMAT, "backbone": description, "sha256": _digest(description, state)}, state


def _state(backbone: Backbone) -> dict[str, Tensor]:
    # Clones: two names may share one tensor, which safetensors does not write.
    state = backbone.trunk.state_dict()
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        return read_saved(file)
    except (SafetensorError, OSError, RuntimeError, ValueError, MemoryError) as error:
        raise CompressError(f"{file} is truncated, damaged or no .safetensors file ({error})") from error


def _refuse_odd_types(file: Path, state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if tensor.dtype not in _TYPES:
            raise CompressError(f"{file}: tensor {name} is {tensor.dtype}, which no backbone is saved in")


def _digest(description: str, state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())  # numpy knows no bfloat16
    return digest.hexdigest()


def describe(spec: BackboneSpec) -> dict[str, Any]:
    """`spec` as JSON values, with what is needed to build the parent again and the versions at hand."""
    description = dataclasses.asdict(dataclasses.replace(spec, constructor=None))
    del description["constructor"]  # code stays out of files
    description["factory"] = spec.architecture.factory_name if spec.is_registered else "constructor"
    description["versions"] = versions()
    return description


def parse_spec(description: dict[str, Any]) -> BackboneSpec:
    """The spec that `describe` made it from; one of `UNREADABLE` is raised where it did not.

    A checksum guards against accidents alone, so every value is checked.
    """
    mean, std = (_three(description[name]) for name in ("mean", "std"))
    size, source, sha256 = description["size"], description["weights"]["source"], description["weights"]["sha256"]
    _require(isinstance(size, int) and 32 <= size <= 4096, f"size {size} is outside 32 to 4096 pixels")
    _require(min(std) > 0, f"std {std} is not above 0")
    _require(isinstance(source, str) and isinstance(sha256, str | None), "weights have no source")
    taps = description["taps"]
    _require(isinstance(taps, list) and all(isinstance(tap, str) for tap in taps), "taps are no list of names")
    pruning = description["pruning"]
    return BackboneSpec(
        arch=str(description["arch"]),
        taps=tuple(taps),
        mean=mean,
        std=std,
        size=size,
        weights=WeightsOrigin(source, sha256),
        pruning=None if pruning is None else _parse_pruning(pruning),
    )


def _parse_pruning(given: dict[str, Any]) -> Pruning:
    pruning = Pruning(**given)
    _require(
        all(isinstance(word, str) for word in (pruning.method, pruning.scope, pruning.recover)),
        "method, scope and recover are no words",
    )
    _require(isinstance(pruning.ratio, float | int) and 0 <= pruning.ratio < 1, f"ratio {pruning.ratio}")
    _require(isinstance(pruning.seed, int), f"seed {pruning.seed}")
    for layer, kept in pruning.kept.items():
        whole = all(isinstance(index, int) and index >= 0 for index in kept)
        _require(whole and len(set(kept)) == len(kept), f"kept channels of {layer}")
    for stage, channels in pruning.stage_channels.items():
        whole = all(isinstance(index, int) and index >= 0 for index in channels)
        _require(whole and len(set(channels)) == len(channels), f"kept channels of stage {stage}")
    steps = (pruning.recover_steps, pruning.sparse_steps or 0)
    _require(all(isinstance(count, int) and count >= 0 for count in steps), f"steps {steps}")
    for name, shape in pruning.tail_shapes.items():
        _require(all(isinstance(side, int) and side >= 0 for side in shape), f"shape of {name}")
    return dataclasses.replace(pruning, tail_shapes={name: tuple(own) for name, own in pruning.tail_shapes.items()})


def _require_widths(spec: BackboneSpec, state: Mapping[str, Tensor]) -> None:
    for layer, kept in (spec.pruning or UNPRUNED).kept.items():
        width = state[f"{layer}.weight"].shape[0]
        _require(len(kept) == width, f"{layer} holds {width} channels, but not so many are kept")


def _three(values: Any) -> tuple[float, float, float]:
    found = rgb(values)
    _require(all(map(math.isfinite, found)), f"{values} is not finite")
    return found


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise ValueError(complaint)
