"""A result on disk: per finished run one JSON row, and one file of images and scores."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly.progress import Track, quiet
from compress.errors import CompressError, some_of
from compress.files import atomic_write, require_file
from pipelines.evidence import Evidence, evidence_file, read_evidence, write_evidence
from reports import Run

_LARGEST = 10_000_000  # bytes of a file of rows, each of which has 2 kB
_LONGEST = 10_000  # characters of a text in a row; pages and figures take minutes to set a million of them
_FAILURE = ".failed.json"


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


def write_result(folder: Path, name: str, row: Row, evidence: Evidence, key: str) -> None:
    """Write NAME.npz, then NAME.json: the row is there when all of the run is, and never beside another's files."""
    file = folder / f"{name}.json"
    _write_beside(file, [evidence])
    atomic_write(file, json.dumps({**dataclasses.asdict(row), "key": key}, indent=1) + "\n")
    failure_file(folder, name).unlink(missing_ok=True)


def failure_file(folder: Path, name: str) -> Path:
    """Where `write_failure` writes."""
    return folder / f"{name}{_FAILURE}"


def write_failure(folder: Path, name: str, reason: str, key: str, trace: str = "") -> None:
    """Record why the run that was to be made from what `key` is the hash of failed, and the `trace` of a bug."""
    failure = {"failed": reason, "key": key} | ({"trace": trace.splitlines()} if trace else {})
    atomic_write(failure_file(folder, name), json.dumps(failure, indent=1) + "\n")


def write_rows(path: Path, rows: Sequence[tuple[Row, Evidence]]) -> None:
    """One row as an object, several as a list, and what they leave in files beside it."""
    _write_beside(path, [evidence for _, evidence in rows])
    described = [dataclasses.asdict(row) for row, _ in rows]
    atomic_write(path, json.dumps(described[0] if len(described) == 1 else described, indent=1) + "\n")


def is_finished(folder: Path, name: str, key: str) -> bool:
    """Whether the run of this name was finished with the same inputs."""
    try:
        return bool(_read_json(folder / f"{name}.json")["key"] == key)
    except (CompressError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False  # missing, damaged or of another make: run it


def read_results(folder: Path, *, track: Track = quiet) -> tuple[list[Run], list[tuple[str, str]]]:
    """All results in `folder`, and (name, reason) of the runs that failed and the files that were left out.

    Raises:
        CompressError: no such folder.
    """
    if not folder.is_dir():
        raise CompressError(f"no results folder {folder}: compress sweep -o {folder} makes one")
    runs: list[Run] = []
    failures: list[tuple[str, str]] = []
    files = sorted(folder.glob("*.json"))
    for file in track(files, "reading results", len(files)):
        found, left_out = read_rows(file)
        runs += found
        failures += left_out
    return runs, failures


def failure_of(folder: Path, name: str, key: str) -> str | None:
    """Why the run of this name failed with these inputs; None where no such failure is recorded."""
    try:
        loaded = _read_json(failure_file(folder, name))
    except (CompressError, OSError, ValueError, RecursionError):
        return None
    return _reason(loaded) if isinstance(loaded, dict) and loaded.get("key") == key else None


def read_rows(file: Path) -> tuple[list[Run], list[tuple[str, str]]]:
    """The results in one file, and (name, reason) of what was left out."""
    try:
        loaded = _read_json(file)
    except (CompressError, OSError, ValueError, RecursionError) as error:
        return [], [(file.name, f"left out: not readable as JSON ({error})")]
    if file.name.endswith(_FAILURE):
        return [], [(file.name.removesuffix(_FAILURE), _reason(loaded))]
    rows: list[Any] = loaded if isinstance(loaded, list) else [loaded]
    runs: list[Run] = []
    failures: list[tuple[str, str]] = []
    strange: list[str] = []
    for index, row in enumerate(rows):
        if complaint := _why_no_row(row):
            strange.append(complaint)
        else:
            beside = evidence_file(file, index, len(rows))
            evidence, complaint = read_evidence(beside)
            runs.append(Run(row, evidence.examples, evidence.scores))
            failures += [(beside.name, complaint)] if complaint else []
    return runs, failures + [(file.name, f"left out: {complaint}") for complaint in dict.fromkeys(strange)]


def _why_no_row(row: Any) -> str | None:
    if not (isinstance(row, dict) and isinstance(row.get("arch"), str) and "image_auroc" in row):
        return "not a row of results"
    long = [name for name, value in row.items() if isinstance(value, str) and len(value) > _LONGEST]
    return f"{some_of(long)} of more than {_LONGEST:,} characters" if long else None


def _reason(loaded: Any) -> str:
    return str(loaded.get("failed", "no reason recorded")) if isinstance(loaded, dict) else "no reason recorded"


def _read_json(file: Path) -> Any:
    return json.loads(require_file(file, most=_LARGEST).read_text(encoding="utf-8"))


def _write_beside(file: Path, evidence: Sequence[Evidence]) -> None:
    file.unlink(missing_ok=True)  # else, should this stop half-way, a former row would stand beside new images
    for index, each in enumerate(evidence):
        if each.examples and each.scores:
            write_evidence(evidence_file(file, index, len(evidence)), each.examples, each.scores)
