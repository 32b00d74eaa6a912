"""What a run leaves beside its row, as one file of plain arrays: example images, and the scores of every test image."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from compress.files import atomic_path
from reports import Examples, ReportError, Scores

SUFFIX = ".npz"
_MAX_UNPACKED = 256_000_000  # nine examples take 3 MB, the small maps of 100,000 images 78 MB
_DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, NotImplementedError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, TokenError),  # the last one out of numpy's headers
)
_EXAMPLES, _SCORES = ("images", "maps", "scores"), ("labels", "scores", "maps")


@dataclass(frozen=True, eq=False)
class Evidence:
    """`scores` is None in the files of earlier versions."""

    examples: Examples | None = None
    scores: Scores | None = None


def evidence_file(rows: Path, index: int = 0, count: int = 1) -> Path:
    """The file beside a file of `count` rows, for the row at `index`: `row.npz`, or `rows.0.npz` and on."""
    return rows.with_suffix(SUFFIX if count == 1 else f".{index}{SUFFIX}")


def write_evidence(file: Path, examples: Examples, scores: Scores) -> None:
    """Write both, whole or not at all."""
    arrays: dict[str, Any] = {name: getattr(examples, name) for name in _EXAMPLES}
    if examples.masks is not None:
        arrays["masks"] = examples.masks
    # Texts become arrays of fixed-width unicode, never of objects, which would be pickled.
    arrays |= {"names": np.array(examples.names, dtype=str), "kinds": np.array(examples.kinds, dtype=str)}
    arrays |= {f"test_{name}": getattr(scores, name) for name in _SCORES}
    arrays |= {"test_names": np.array(scores.names, dtype=str), "test_range": np.array([scores.low, scores.high])}
    if scores.pixels is not None:
        arrays["test_pixels"] = scores.pixels
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, range=np.array([examples.low, examples.high]), **arrays)


def read_evidence(file: Path) -> tuple[Evidence, str | None]:
    """What `file` holds, and a complaint where it is damaged. No file is no evidence, and no complaint."""
    if not file.is_file():
        return Evidence(), None
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MAX_UNPACKED:
            raise ValueError(f"{unpacked} bytes unpacked, the limit is {_MAX_UNPACKED}")
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored.items())
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):  # numpy gives an entry without its header as bytes
                raise ValueError(f"{name} is no array")
        return Evidence(_examples(arrays), _scores(arrays) if "test_scores" in arrays else None), None
    # What numpy, zipfile and zlib raise on damaged files, and Examples and Scores on arrays that do not fit.
    except (*_DAMAGED, ReportError) as error:
        return Evidence(), f"images and scores left out: damaged ({error})"


def _examples(stored: dict[str, Any]) -> Examples:
    low, high = (float(value) for value in stored["range"])
    return Examples(
        names=[str(name) for name in stored["names"]],
        kinds=[str(kind) for kind in stored["kinds"]],
        masks=stored.get("masks"),
        low=low,
        high=high,
        **{name: stored[name] for name in _EXAMPLES},
    )


def _scores(stored: dict[str, Any]) -> Scores:
    low, high = (float(value) for value in stored["test_range"])
    return Scores(
        names=[str(name) for name in stored["test_names"]],
        low=low,
        high=high,
        pixels=stored.get("test_pixels"),
        **{name: stored[f"test_{name}"] for name in _SCORES},
    )
