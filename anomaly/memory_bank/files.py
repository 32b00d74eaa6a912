"""A memory bank on disk: a folder with the index, the image numbers, and `bank.json`, which names both.

The files bear a part of their checksum in their names and `bank.json` is replaced last, so that a reader finds
the old bank or the new one and never half of each, and a killed writer leaves the old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import AnomalyError
from anomaly.memory_bank.exact import ExactIndex
from anomaly.memory_bank.faiss_index import FaissIndex
from anomaly.memory_bank.kinds import EXACT
from prunecore_runtime.regular_file import why_no_file

if TYPE_CHECKING:
    from anomaly.memory_bank.bank import Index

FORMAT = "prunecore-bank/1"
HEADER = "bank.json"
_PARTS = ("index", "images")
_LONGEST = 1_000_000  # bytes of HEADER, which has some 400


def write(folder: Path, index: Index, images: NDArray[np.int32]) -> None:
    """Write a bank; `images` (K,) are the numbers of the patches' images.

    Raises:
        AnomalyError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, "index": index.spec, "dimension": index.dimension, "patches": len(index)}
        parts = {
            "index": _write_part(folder, "index", index.write),
            "images": _write_part(folder, "images", lambda file: _write_array(file, images)),
        }
        _write_part(folder, HEADER, lambda file: _write_json(file, {**header, "files": parts}))
        named = {HEADER, *(str(part["name"]) for part in parts.values())}
        for file in folder.iterdir():  # what the header named before; readers that have it open keep it
            if file.name not in named and file.name.split("-")[0] in _PARTS:
                file.unlink()
    except OSError as error:
        raise AnomalyError(f"cannot write the memory bank {folder}: {error.strerror or error}") from error


def read(folder: Path, *, memory_map: bool) -> tuple[Index, NDArray[np.int32], Path]:
    """The index and the image numbers of a bank, and the index's file.

    Raises:
        AnomalyError: no bank, a damaged one, or one of a later version.
    """
    while True:
        header = _header(folder)
        try:
            return _read(folder, header, memory_map=memory_map)
        except AnomalyError:
            if _header(folder) == header:
                raise
            # Between the header and the files another process replaced the bank: the new one is whole.


def _read(folder: Path, header: dict[str, Any], *, memory_map: bool) -> tuple[Index, NDArray[np.int32], Path]:
    try:
        spec, shape = str(header["index"]), (int(header["patches"]), int(header["dimension"]))
        found = {part: _checked(folder, header["files"][part]) for part in _PARTS}
        index: Index = (
            ExactIndex.read(found["index"], memory_map=memory_map)
            if spec == EXACT
            else FaissIndex.read(found["index"], spec, memory_map=memory_map)
        )
        images = np.load(found["images"], allow_pickle=False)
    except (KeyError, TypeError, ValueError, OverflowError, EOFError, TokenError, OSError) as error:
        raise _damaged(folder, HEADER) from error
    if (len(index), index.dimension) != shape or images.shape != shape[:1]:
        raise _damaged(folder, HEADER)
    return index, images, found["index"]


def _header(folder: Path) -> dict[str, Any]:
    try:
        _require_file(folder / HEADER, most=_LONGEST)
        header = json.loads((folder / HEADER).read_text())
    except FileNotFoundError as error:
        raise AnomalyError(
            f"{folder} holds no memory bank ({HEADER} is missing): name a folder that has one"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder, HEADER) from error
    made = header.get("format") if isinstance(header, dict) else None
    if made != FORMAT:
        raise AnomalyError(f"{folder} is a memory bank of format {made!r}, this version reads {FORMAT}: fit it anew")
    return dict(header)


def _checked(folder: Path, part: dict[str, Any]) -> Path:
    name = str(part["name"])
    file = folder / Path(name).name
    try:
        _require_file(file)
        size = file.stat().st_size
        if size != part["bytes"]:
            raise _damaged(folder, name, f"it has {size} bytes, not {part['bytes']}")
        if _sha256(file) != part["sha256"]:
            raise _damaged(folder, name, "its checksum is another")
    except OSError as error:
        raise _damaged(folder, name, error.strerror or str(error)) from error
    return file


def _require_file(file: Path, most: int | None = None) -> None:
    if complaint := why_no_file(file, most=most):
        raise AnomalyError(f"the memory bank {file.parent} is damaged: {complaint}")


def _damaged(folder: Path, name: str, reason: str = "not what was written") -> AnomalyError:
    return AnomalyError(f"the memory bank {folder} is damaged: {name}: {reason}; copy it anew or fit again")


def _write_part(folder: Path, name: str, fill: Callable[[Path], None]) -> dict[str, Any]:
    """A file of `folder`, whole and on the disk before it has its name; returns what the header says of it."""
    temporary = folder / f".{uuid.uuid4().hex}.partial"
    try:
        fill(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        digest = _sha256(temporary)
        final = name if name == HEADER else f"{name}-{digest[:12]}"
        described = {"name": final, "bytes": temporary.stat().st_size, "sha256": digest}
        temporary.replace(folder / final)
        return described
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n")


def _write_array(file: Path, array: NDArray[Any]) -> None:
    with file.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
