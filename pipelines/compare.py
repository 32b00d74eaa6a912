"""What stands on either side of a comparison: rows of results on disk, or a backbone that is judged now."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from anomaly import Category
from anomaly.progress import Track, quiet
from compress.errors import CompressError
from pipelines.console import note
from pipelines.evaluate import DetectorSettings, evaluate
from pipelines.models import names_a_file, open_model
from pipelines.results import read_results, read_rows
from reports import Run


def holds_rows(side: str) -> bool:
    """Whether `side` is a folder or a file of results, and no model."""
    return Path(side).is_dir() or Path(side).suffix == ".json"


def read_side(side: str) -> list[Run]:
    """The runs in a folder or a file of results; what is left out is told.

    Raises:
        CompressError: no such place, or no result in it.
    """
    place = Path(side)
    runs, left_out = read_results(place) if place.is_dir() else read_rows(place)
    if not runs:
        reason = f": {left_out[0][1]}" if left_out else ""
        raise CompressError(
            f"{side} holds no row of results{reason}; compress evaluate -o {place.stem}.json writes one"
        )
    for name, complaint in left_out:
        note(f"{name}: {complaint}")
    return runs


def judge_side(
    model: str,
    weights: str,
    categories: Sequence[Category],
    settings: DetectorSettings,
    *,
    command: str,
    track: Track = quiet,
) -> list[Run]:
    """A run of `model` on each category; `weights` are for architectures, for an artifact holds its own."""
    backbone = open_model(model, weights="auto" if names_a_file(model) else weights, seed=settings.seed)
    runs = []
    for category in categories:
        row, evidence = evaluate(backbone, category, settings, command=command, track=track)
        runs.append(Run(dataclasses.asdict(row), evidence.examples, evidence.scores))
    return runs
