"""A result on disk: one JSON row and one file of example images per finished run."""

from __future__ import annotations

import dataclasses
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import CompressError
from compress.files import atomic_path, atomic_write
from reports import Examples, ReportError, Run

FAILED = ".failed.json"
_MAX_UNPACKED = 64_000_000  # five examples take 2 MB
_DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, NotImplementedError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
_ARRAYS = ("images", "maps", "scores")


@dataclass(frozen=True)
class Row:
    """One backbone on one category. None means that the value does not exist, never zero.

    `sparse_steps` were trained before the cut (0: one shot, None: the method has no such phase), `recover_steps` after
    it. Metrics are in [0, 1]; `ms_` are medians in milliseconds for one image, `_p95` behind them what one image in
    twenty exceeds; `ms_total` starts at the decoded image. `_full` is the whole classification network and `_used` what
    the detector runs. `runtime` computes the backbone; `dimension` is the length of a patch's vector; `index` is
    `exact` or a FAISS factory string; `predict_rss_bytes` the peak memory while one image at a time is predicted.
    """

    arch: str
    method: str
    ratio: float
    scope: str
    recover: str
    precision: str
    dataset: str
    category: str
    seed: int
    params_full: int
    params_used: int
    macs_full: int
    macs_used: int
    file_bytes: int
    bank_size: int
    image_auroc: float | None
    image_f1: float | None
    pixel_auroc: float | None
    pixel_f1: float | None
    aupro: float | None
    ms_features: float | None
    ms_embedding: float | None
    ms_search: float | None
    ms_scoring: float | None
    ms_total: float | None
    ms_decode: float | None
    ms_decode_p95: float | None
    ms_features_p95: float | None
    ms_embedding_p95: float | None
    ms_search_p95: float | None
    ms_scoring_p95: float | None
    ms_total_p95: float | None
    peak_rss_bytes: int
    command: str
    versions: dict[str, str]
    machine: str
    threads: int
    runtime: str
    data_fingerprint: str
    weights_source: str
    weights_fingerprint: str | None
    sparse_steps: int | None
    recover_steps: int
    dimension: int
    index: str
    predict_rss_bytes: int | None


def write_result(folder: Path, name: str, row: Row, examples: Examples, key: str) -> None:
    """Write NAME.npz, then NAME.json: the row is there only when all of the run is."""
    with atomic_path(folder / f"{name}.npz") as temporary, temporary.open("wb") as stream:
        _savez(stream, examples)
    atomic_write(folder / f"{name}.json", json.dumps({**dataclasses.asdict(row), "key": key}, indent=1) + "\n")
    (folder / f"{name}{FAILED}").unlink(missing_ok=True)


def write_failure(folder: Path, name: str, reason: str) -> None:
    """Record why a run failed."""
    atomic_write(folder / f"{name}{FAILED}", json.dumps({"failed": reason}) + "\n")


def write_rows(path: Path, rows: list[Row]) -> None:
    """One row as an object, several as a list."""
    described = [dataclasses.asdict(row) for row in rows]
    atomic_write(path, json.dumps(described[0] if len(described) == 1 else described, indent=1) + "\n")


def is_finished(folder: Path, name: str, key: str) -> bool:
    """Whether the run of this name was finished with the same inputs."""
    try:
        return bool(json.loads((folder / f"{name}.json").read_text())["key"] == key)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False  # missing, damaged or of another make: run it


def read_results(folder: Path) -> tuple[list[Run], list[tuple[str, str]]]:
    """All results in `folder`, and (name, reason) of the runs that failed and the files that were left out.

    Raises:
        CompressError: no such folder.
    """
    if not folder.is_dir():
        raise CompressError(f"no results folder {folder}: compress sweep -o {folder} makes one")
    runs: list[Run] = []
    failures: list[tuple[str, str]] = []
    for file in sorted(folder.glob("*.json")):
        try:
            loaded = json.loads(file.read_text())
        except (OSError, ValueError, RecursionError) as error:
            failures.append((file.name, f"left out: not readable as JSON ({error})"))
            continue
        if file.name.endswith(FAILED):
            failures.append((file.name.removesuffix(FAILED), _reason(loaded)))
            continue
        rows: list[Any] = loaded if isinstance(loaded, list) else [loaded]
        for row in rows:
            if isinstance(row, dict) and isinstance(row.get("arch"), str) and "image_auroc" in row:
                runs.append(Run(row, _read_examples(file.with_suffix(".npz"), failures)))
            else:
                failures.append((file.name, "left out: not a row of results"))
    return runs, failures


def failure_of(folder: Path, name: str) -> str:
    """Why the run of this name failed, as far as that was recorded."""
    try:
        return _reason(json.loads((folder / f"{name}{FAILED}").read_text()))
    except (OSError, ValueError, RecursionError):
        return _reason(None)


def _reason(loaded: Any) -> str:
    return str(loaded.get("failed", "no reason recorded")) if isinstance(loaded, dict) else "no reason recorded"


def _savez(stream: Any, examples: Examples) -> None:
    arrays: dict[str, Any] = {name: getattr(examples, name) for name in _ARRAYS}
    if examples.masks is not None:
        arrays["masks"] = examples.masks
    # Texts become arrays of fixed-width unicode, never of objects, which would be pickled.
    arrays |= {"names": np.array(examples.names, dtype=str), "kinds": np.array(examples.kinds, dtype=str)}
    np.savez_compressed(stream, allow_pickle=False, range=np.array([examples.low, examples.high]), **arrays)


def _read_examples(file: Path, failures: list[tuple[str, str]]) -> Examples | None:
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MAX_UNPACKED:
            raise ValueError(f"{unpacked} bytes unpacked, the limit is {_MAX_UNPACKED}")
        with np.load(file, allow_pickle=False) as stored:
            low, high = (float(value) for value in stored["range"])
            return Examples(
                names=[str(name) for name in stored["names"]],
                kinds=[str(kind) for kind in stored["kinds"]],
                masks=stored.get("masks"),
                low=low,
                high=high,
                **{name: stored[name] for name in _ARRAYS},
            )
    # What numpy, zipfile and zlib raise on damaged files, and Examples on arrays that do not fit.
    except (*_DAMAGED, ReportError) as error:
        failures.append((file.name, f"images left out: damaged ({error})"))
        return None
