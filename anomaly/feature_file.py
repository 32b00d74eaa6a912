"""Patch features on disk, block after block, so that a killed fit goes on and memory holds a stretch at a time.

Two files: `NAME.features`, the rows as they come, and `NAME.blocks`, one line of JSON about what they are and one for
each block with its rows and SHA-256. A line is written after its block lies on the disk: what follows the last whole
line was being written when the run was killed, and is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly.errors import AnomalyError

FORMAT = "prunecore-features/1"
DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class _Block:
    rows: int
    dimensions: int
    sha256: str

    def __post_init__(self) -> None:
        if not (type(self.rows) is type(self.dimensions) is int and self.rows > 0 < self.dimensions):
            raise ValueError(f"a block of {self.rows} x {self.dimensions}")


class FeatureFile:
    """Features (N, D) in `folder`; `file[start:stop]` reads rows as float32, `append` adds a block.

    Opening reads every block once and checks it against its SHA-256.

    Args:
        folder: where to; made if there is none.
        request: what the features are of, as JSON values. It names the files: other requests have others.
        dtype: float32, or float16 for half the space (values up to 65,504, three to four digits).

    Raises:
        AnomalyError: the folder cannot be written, or the files in it are damaged.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], *, dtype: str = "float32") -> None:
        _check_dtype(dtype)
        self._dtype = np.dtype(dtype)
        header = json.dumps({"format": FORMAT, "request": request, "dtype": dtype}, sort_keys=True)
        name = hashlib.sha256(header.encode()).hexdigest()[:16]
        self._data, self._lines = folder / f"{name}.features", folder / f"{name}.blocks"
        self._blocks: list[_Block] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._lines.exists() and self._lines.stat().st_size > len(header):
                self._read_lines(header)
                self._check()
            else:
                _write(self._data, b"", at=0)
                _write(self._lines, f"{header}\n".encode(), at=0)
        except OSError as error:
            raise AnomalyError(f"cannot keep features in {folder}: {error.strerror or error}") from error

    def __str__(self) -> str:
        return str(self._data)

    @property
    def blocks(self) -> int:
        """How many blocks are there."""
        return len(self._blocks)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), self._blocks[0].dimensions if self._blocks else 0

    def __len__(self) -> int:
        return sum(block.rows for block in self._blocks)

    def block(self, index: int) -> Tensor:
        """The rows of one block."""
        start = sum(block.rows for block in self._blocks[:index])
        return self[start : start + self._blocks[index].rows]

    def append(self, features: Tensor) -> None:
        """Write a block (n, D) and wait until the disk has it.

        Raises:
            AnomalyError: the disk is full, or values that the file's precision cannot hold.
        """
        with np.errstate(over="ignore"):  # refused below
            values = np.ascontiguousarray(features.cpu().numpy().astype(self._dtype))
        if self._dtype == np.float16 and not np.isfinite(values).all():
            raise AnomalyError("features beyond 65504 do not fit float16: keep them as float32")
        content = values.tobytes()
        block = _Block(len(values), values.shape[1], hashlib.sha256(content).hexdigest())
        try:
            _write(self._data, content, at=self._bytes())
            _write(self._lines, f"{json.dumps(vars(block))}\n".encode(), at=self._lines.stat().st_size)
        except OSError as error:
            raise AnomalyError(
                f"cannot write {self._data} ({error.strerror or error}): free space or name another folder; "
                f"the next run goes on after {len(self)} patches"
            ) from error
        self._blocks.append(block)

    def __getitem__(self, stretch: slice, /) -> Tensor:
        start, stop, step = stretch.indices(len(self))
        if step != 1:
            raise AnomalyError(f"features on disk are read in their order, not with step {step}")
        # Read, not mapped: mapped pages stay with the process and would count as its memory.
        width = self.shape[1]
        try:
            with self._data.open("rb") as stream:
                stream.seek(start * width * self._dtype.itemsize)
                values = np.fromfile(stream, self._dtype, (stop - start) * width)
        except OSError as error:
            raise AnomalyError(f"cannot read {self._data}: {error.strerror or error}") from error
        if len(values) < (stop - start) * width:
            raise self._damaged("is shorter than it was")
        return torch.from_numpy(values.reshape(-1, width).astype(np.float32, copy=False))

    def take(self, indices: Tensor) -> Tensor:
        """Rows (K, D) of `indices` (K,), in their order."""
        mapped: NDArray[Any] = np.memmap(self._data, self._dtype, "r", shape=(len(self), self.shape[1]))
        return torch.from_numpy(mapped[indices.numpy()].astype(np.float32))

    def _read_lines(self, header: str) -> None:
        first, *lines = self._lines.read_bytes().split(b"\n")
        whole = lines[:-1]  # what follows the last line break was being written
        if first != header.encode() or not lines:
            raise self._damaged("has another heading than its name says")
        try:
            self._blocks = [_Block(**json.loads(line)) for line in whole]
            if len({block.dimensions for block in self._blocks}) > 1:
                raise ValueError("rows of several lengths")
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(f"has an unreadable list of blocks ({error})") from error
        with self._lines.open("rb+") as stream:
            stream.truncate(sum(len(line) + 1 for line in (first, *whole)))

    def _check(self) -> None:
        start = 0
        if not self._data.exists() or self._data.stat().st_size < self._bytes():
            raise self._damaged("is shorter than its list of blocks says")
        with self._data.open("rb") as stream:
            for index, block in enumerate(self._blocks):
                content = stream.read(block.rows * block.dimensions * self._dtype.itemsize)
                if hashlib.sha256(content).hexdigest() != block.sha256:
                    raise self._damaged(f"is damaged in block {index} (patches {start} to {start + block.rows - 1})")
                start += block.rows

    def _bytes(self) -> int:
        return sum(block.rows * block.dimensions for block in self._blocks) * self._dtype.itemsize

    def _damaged(self, what: str) -> AnomalyError:
        return AnomalyError(f"{self._data} {what}: delete it and {self._lines.name} to extract the features anew")


def check_storage(folder: str | Path | None, dtype: str) -> None:
    """Refuse, before any work, what features cannot be kept in; `folder` None: in memory.

    Raises:
        AnomalyError: a precision that is neither float32 nor float16, or float16 in memory.
    """
    _check_dtype(dtype)
    if folder is None and dtype != DTYPES[0]:
        raise AnomalyError(f"features are kept as {dtype} on disk alone: name a folder (--features), or drop it")


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise AnomalyError(f"features cannot be kept as {dtype!r}: choose from {', '.join(DTYPES)}")


def _write(file: Path, content: bytes, *, at: int) -> None:
    """Put `content` at byte `at`, cut off what follows, and wait for the disk."""
    with file.open("rb+" if file.exists() else "wb") as stream:
        stream.seek(at)
        stream.write(content)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
