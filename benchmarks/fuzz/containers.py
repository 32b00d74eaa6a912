"""Damage that keeps to a container's own rules, so that it gets past the first look: safetensors, zip, npz and PNG."""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.fuzz.damage import damaged, damaged_json

_NAMES = (
    "../evil",
    "/etc/passwd",
    "..\\evil",
    "a/../../b",
    "",
    "x" * 60_000,
    "\x1b[2J",
    "C:\\x",
    "é",
    "bank.npy/",
    "a\nb",
)
_SHAPES = ((), (0,), (10**12,), (2**62, 4), (-1, 3), (1,) * 33, (10**9, 10**9), (3, 3))


def damaged_safetensors(rng: Random, content: bytes) -> bytes:
    """The header edited or its length a lie, the tensors as they were."""
    length = int.from_bytes(content[:8], "little")
    header, tensors = content[8 : 8 + length], content[8 + length :]
    text = damaged_json(rng, json.loads(header)).encode("utf-8", "surrogatepass")
    told = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 10**8 - 1, 10**8 + 1, 2**63, 2**64 - 1))
    return told.to_bytes(8, "little") + text + tensors


def damaged_tensors(rng: Random, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One or two tensors gone, renamed, put in, of another type or shape, or not finite."""
    changed = dict(tensors)
    for _ in range(rng.choice((1, 1, 2))):
        if not changed:
            break
        name = rng.choice(list(changed))
        tensor = changed[name]
        kind = rng.randrange(7)
        if kind == 0:
            del changed[name]
        elif kind == 1:
            changed[rng.choice(("x", "", "../x", f"{name}.weight", rng.choice(list(tensors))))] = changed.pop(name)
        elif kind == 2:
            changed[name] = tensor.to(rng.choice((torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)))
        elif kind == 3:
            changed[name] = rng.choice((tensor.flatten(), tensor[None], tensor.flatten()[:1], tensor.flatten()[:0]))
        elif kind == 4 and tensor.ndim:
            axis = rng.randrange(tensor.ndim)
            changed[name] = torch.cat([tensor, tensor], axis) if rng.random() < 0.3 else tensor.narrow(axis, 0, 1)
        elif kind == 5 and tensor.is_floating_point():
            changed[name] = torch.full_like(tensor, rng.choice((float("nan"), float("inf"), -1e38)))
        else:
            changed["surprise"] = torch.zeros(rng.choice(((), (0, 5), (3, 3))))
    return {name: tensor.clone().contiguous() for name, tensor in changed.items()}


def entries_of(content: bytes) -> dict[str, bytes]:
    """The entries of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def damaged_zip(rng: Random, entries: Mapping[str, bytes]) -> bytes:
    """Entries that are gone, double, damaged, links, called like other people's files, or bombs."""
    listed = list(entries.items())
    kind, place = rng.randrange(8), rng.randrange(len(listed))
    name, content = listed[place]
    method = zipfile.ZIP_STORED
    if kind == 0:
        listed.pop(place)
    elif kind == 1:
        listed.append((rng.choice((name, *_NAMES)), content))
    elif kind == 2:
        listed[place] = rng.choice(_NAMES), content
    elif kind == 3:
        listed[place] = name, damaged(rng, content, list(entries.values()))
    elif kind == 4:
        listed[place] = name, bytes(rng.choice((10**3, 10**6, 3 * 10**7)))
        method = zipfile.ZIP_DEFLATED
    elif kind == 5:
        method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for index, (entry, packed) in enumerate(listed):
            described = zipfile.ZipInfo(entry)
            described.compress_type = method
            if kind == 6 and index == place:
                described.external_attr = (stat.S_IFLNK | 0o777) << 16
                packed = b"/etc/passwd"
            archive.writestr(described, packed)
    zipped = buffer.getvalue()
    return damaged(rng, zipped) if kind == 7 or rng.random() < 0.1 else zipped


def damaged_npz(rng: Random, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays of other types and shapes, pickled ones, and headers that promise more than there is."""
    changed: dict[str, Any] = dict(arrays)
    name = rng.choice(list(changed))
    array = changed[name]
    kind = rng.randrange(7)
    if kind == 0:
        del changed[name]
    elif kind == 1:
        changed[name] = rng.choice((array.astype(str), array.astype("S3"), np.array([None, {}]), array != array[:1]))
    elif kind == 2:
        changed[name] = rng.choice((array[None], array.ravel(), array[:0], array[:1], np.array(5.0), array.ravel()[:3]))
    elif kind == 3 and array.dtype.kind == "f":
        changed[name] = np.full_like(array, rng.choice((np.nan, np.inf, 1e38)))
    entries = {f"{each}.npy": _npy(value) for each, value in changed.items()}
    if kind >= 5:
        descr = rng.choice(("<f8", "|u1", "|O", "<U1000000000", "<U0", "|V0", "x" * 30_000))
        entries[f"{name}.npy"] = npy_that_says(descr, rng.choice(_SHAPES), array.tobytes())
    return damaged_zip(rng, entries) if kind == 4 or rng.random() < 0.1 else zipped(entries)


def npy_that_says(descr: str, shape: tuple[int, ...], content: bytes) -> bytes:
    """An .npy file whose header says so, whatever follows it."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header) + 1) + header + b"\n" + content


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def zipped(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def damaged_png(rng: Random, content: bytes) -> bytes:
    """Chunks, rightly checksummed, that lie about the size or the kind of pixels, or unpack to megabytes."""
    chunks = _chunks(content)
    kind = rng.randrange(6)
    if kind == 0:
        sides = rng.choice(((1, 2**31 - 1), (2**31 - 1, 1), (0, 5), (13_000, 13_000), (60_000, 60_000), (2**32 - 1, 9)))
        chunks[0] = b"IHDR", struct.pack(">II", *sides) + chunks[0][1][8:]
    elif kind == 1:
        chunks[0] = b"IHDR", chunks[0][1][:8] + rng.randbytes(5)
    elif kind == 2:
        text = zlib.compress(bytes(rng.choice((10**4, 5 * 10**7))))
        named = rng.choice((b"zTXt", b"iCCP", b"iTXt"))
        chunks.insert(1, (named, b"x\0\0" + (b"\0\0\0" if named == b"iTXt" else b"") + text))
    elif kind == 3:
        chunks.insert(rng.randrange(1, len(chunks)), rng.choice(chunks))
    elif kind == 4:
        place = rng.randrange(len(chunks))
        chunks[place] = chunks[place][0], damaged(rng, chunks[place][1])
    else:
        chunks.insert(1, (rng.choice((b"tRNS", b"PLTE", b"gAMA", b"acTL", b"eXIf", b"cICP")), rng.randbytes(12)))
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    place, found = 8, []
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found
