"""What `compress sensitivity` measures, and the files that it writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd
from torch import Tensor

from anomaly import open_dataset
from anomaly.progress import Track, quiet
from compress import Backbone, CompressError
from compress.files import atomic_write
from compress.pruning.sensitivity import sensitivity
from pipelines.console import note
from pipelines.image_sets import open_images
from pipelines.places import cache_folder
from reports.sensitivity import GroupCut, sensitivity_figure

T = TypeVar("T")

IMAGES = 16


def few_images(folders: Sequence[str] | None, *, track: Track = quiet) -> list[Tensor]:
    """Images out of `folders`, evenly spread over them; by default good ones of the generated dataset, with a note."""
    if folders is None:
        note(f"no --images given: {IMAGES} images of the generated dataset are used; your own tell more")
        categories = open_dataset("generated", cache=cache_folder(), track=track)
        files = [sample.image for category in categories for sample in category.train]
        return open_images((), also=_spread(files), track=track)[:]
    return _spread(open_images(folders, track=track))


def measure(
    backbone: Backbone,
    images: Sequence[Tensor],
    *,
    method: str,
    ratios: Sequence[float],
    seed: int,
    track: Track = quiet,
) -> list[GroupCut]:
    """`compress.pruning.sensitivity.sensitivity` in the terms of `reports`."""
    rows = sensitivity(backbone, images=images, method=method, ratios=ratios, seed=seed, track=track)
    names = [field.name for field in dataclasses.fields(GroupCut)]
    return [GroupCut(**{name: getattr(row, name) for name in names}) for row in rows]


def make_folder(folder: Path) -> None:
    """Make `folder` where it is missing, before any work.

    Raises:
        CompressError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompressError(f"cannot make the folder {folder}: {error.strerror}; name another") from error


def write_sensitivity(folder: Path, rows: Sequence[GroupCut], *, title: str, made_by: Mapping[str, object]) -> None:
    """sensitivity.csv, .json, .png and .svg; `made_by` goes into the JSON."""
    records = [dataclasses.asdict(row) for row in rows]
    atomic_write(folder / "sensitivity.csv", pd.DataFrame(records).to_csv(index=False))
    atomic_write(folder / "sensitivity.json", json.dumps({**made_by, "cuts": records}, indent=1))
    for name, content in sensitivity_figure(rows, title=title).items():
        atomic_write(folder / name, content)


def _spread(items: Sequence[T]) -> list[T]:
    """`IMAGES` of the items, or all if there are fewer, at equal distances."""
    count = min(IMAGES, len(items))
    return [items[place * len(items) // count] for place in range(count)]
