"""The artifact: a backbone as one `.safetensors` file that tells how to rebuild it. No pickle, no code.

The header holds the format, a JSON description, and the SHA-256 of both description and tensors,
so that an edited file is told from a whole one. The tensors bear the parent architecture's names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compress.architectures import find_architecture
from compress.backbone import Backbone, BackboneSpec, Pruning, assemble
from compress.errors import CompressError
from compress.files import atomic_path
from compress.weights import WeightsOrigin

FORMAT = "prunecore/1"
_PACKAGES = ("prunecore", "torch", "torchvision", "timm", "torch-pruning")


def save(backbone: Backbone, path: str | os.PathLike[str]) -> None:
    """Write `backbone` to `path`, whole or not at all.

    Raises:
        CompressError: `path` cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.trunk.state_dict().items()}
    description = json.dumps(_describe(backbone.spec), sort_keys=True)
    header = {"format": FORMAT, "backbone": description, "sha256": _digest(description, state)}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata=header)


def load_backbone(path: str | os.PathLike[str]) -> Backbone:
    """The backbone in `path`, in evaluation mode, its outputs equal bit for bit to the saved one's.

    Raises:
        CompressError: the file is missing, truncated, edited, foreign, or of a newer format.
    """
    file = Path(path)
    header, state = _read(file)
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
        spec = _parse(json.loads(description))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CompressError(f"{file} has an unreadable description ({type(error).__name__}: {error})") from error
    try:
        return assemble(spec, state)
    except CompressError as error:
        raise CompressError(f"{file}: {error}") from error


def artifact_bytes(backbone: Backbone) -> int:
    """Size of the file that `save` makes of `backbone`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "backbone.safetensors")
        save(backbone, file)
        return file.stat().st_size


def versions() -> dict[str, str]:
    """The versions that a result depends on, by distribution."""
    return {name: version(name) for name in _PACKAGES}


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not file.is_file():
        raise CompressError(f"no such file: {file}")
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            return header, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 not a dict
    except (SafetensorError, OSError, RuntimeError, ValueError, MemoryError) as error:
        raise CompressError(f"{file} is truncated, damaged or no .safetensors file ({error})") from error


def _digest(description: str, state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _describe(spec: BackboneSpec) -> dict[str, Any]:
    description = dataclasses.asdict(spec)
    description["factory"] = find_architecture(spec.arch).factory_name
    description["versions"] = versions()
    return description


def _parse(description: dict[str, Any]) -> BackboneSpec:
    pruning = description["pruning"]
    mean, std = (tuple(float(value) for value in description[name]) for name in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError("mean and std need three values, std above 0")
    size = int(description["size"])
    if not 32 <= size <= 4096:
        raise ValueError(f"size {size} is outside 32 to 4096 pixels")
    return BackboneSpec(
        arch=str(description["arch"]),
        taps=tuple(str(tap) for tap in description["taps"]),
        mean=mean,
        std=std,
        size=size,
        weights=WeightsOrigin(**description["weights"]),
        pruning=None if pruning is None else Pruning(**pruning),
    )
