"""The state of a training in one `.safetensors` file: written whole or not at all, read for the same request alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from compress.errors import CompressError, some_of
from compress.files import atomic_save, read_saved
from compress.networks import State

FORMAT = "prunecore-checkpoint/2"


def write_checkpoint(file: Path, request: Mapping[str, Any], progress: Mapping[str, Any], tensors: State) -> None:
    """Replace `file` by the given state.

    Args:
        request: what was asked for, as JSON values; the file is read again for the same request alone.
        progress: how far the training is, as JSON values.

    Raises:
        CompressError: `file` cannot be written.
    """
    header = {"format": FORMAT, "request": _json(request), "progress": _json(progress)}
    atomic_save(file, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, header)


def read_checkpoint(file: Path, request: Mapping[str, Any]) -> tuple[dict[str, Any], State] | None:
    """Progress and tensors in `file`, or None if there is no such file.

    Raises:
        CompressError: the file is damaged, no checkpoint, or another request's.
    """
    if not file.exists():
        return None
    try:
        header, tensors = read_saved(file)
        found = header.get("format")
        progress, asked = json.loads(header.get("progress", "{}")), json.loads(header.get("request", "{}"))
    except (SafetensorError, OSError, RuntimeError, ValueError, MemoryError) as error:
        raise CompressError(f"checkpoint {file} is damaged ({error}): delete it to begin anew") from error
    if found != FORMAT:
        raise CompressError(f"{file} is no checkpoint of this version ({found}): delete it or name another file")
    if not (isinstance(asked, dict) and isinstance(progress, dict)):
        raise CompressError(f"checkpoint {file} is damaged (its header is no record): delete it to begin anew")
    _require_same(file, asked, json.loads(_json(request)))
    return progress, tensors


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        digest.update(state[name].detach().cpu().double().numpy().tobytes())  # numpy knows no bfloat16
    return digest.hexdigest()


def _require_same(file: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if names:
        other = some_of((f"{name} {_short(found.get(name))}, not {_short(wanted.get(name))}" for name in names), 3)
        raise CompressError(f"checkpoint {file} belongs to another request ({other}): delete it or name another file")


def _short(value: Any) -> str:
    return str(value)[:12]


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
