"""The generated dataset as the registry offers it: made once, then read from the cache."""

from __future__ import annotations

from pathlib import Path

from anomaly.datasets.generated.writing import VERSION, generate
from anomaly.datasets.mvtec import read_mvtec
from anomaly.errors import AnomalyError
from anomaly.progress import Track, quiet
from anomaly.samples import Category


def read_generated(cache: Path, track: Track = quiet) -> list[Category]:
    """Every surface of the default set, seed 0, kept in `cache` under this version's name."""
    folder = cache / f"generated-{VERSION}"
    if not folder.is_dir():
        try:
            generate(folder, track=track)
        except AnomalyError:
            # Another process may have finished the same set first.
            if not folder.is_dir():
                raise
    return read_mvtec(folder, dataset="generated")
