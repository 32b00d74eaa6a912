"""From what a user types as datasets to categories, with one line for each thing that they lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from anomaly import Category, open_dataset
from anomaly.progress import Track
from anomaly.samples import GOOD
from compress.errors import CompressError, some_of
from pipelines.console import note
from pipelines.places import cache_folder, find_dataset


def open_categories(
    datasets: Sequence[str], only: Sequence[str], *, train_only: bool = False, track: Track
) -> list[Category]:
    """The categories of all `datasets`, or those named in `only`; says which metrics will be n/a.

    With `train_only` nothing is judged: see `open_dataset`.

    Raises:
        AnomalyError: no such dataset or category, or one without test images.
        CompressError: none, or two of one name.
    """
    if not datasets:
        raise CompressError("no dataset given: --dataset generated is the embedded one")
    own: dict[Path | str, str] = {}  # one folder under two spellings is read once
    for place in map(find_dataset, datasets):
        own.setdefault(Path(place).resolve() if Path(place).is_dir() else place, place)
    categories = [
        category
        for place in own.values()
        for category in open_dataset(place, cache=cache_folder(), only=only, train_only=train_only, track=track)
    ]
    names = Counter((category.dataset, category.name) for category in categories)
    twice = [f"{dataset}/{category}" for (dataset, category), count in names.items() if count > 1]
    if twice:
        raise CompressError(f"{twice[0]} is there twice, and results bear that name: rename one of the folders")
    if train_only:
        return categories
    for category in categories:
        name = f"{category.dataset}/{category.name}"
        if not category.is_two_sided:
            note(f"{name}: {_one_sided(category)}, so its image metrics are n/a")
        elif not category.has_masks:
            note(f"{name}: no masks, so its pixel metrics are n/a")
    return categories


def _one_sided(category: Category) -> str:
    kinds = sorted({sample.kind for sample in category.test})
    if kinds == [GOOD]:
        return "all test images are good"
    return f"all test images are defective (of {some_of(kinds)}; good ones lie in a folder called {GOOD})"
