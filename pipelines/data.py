"""From what a user types as datasets to categories, with one line for each thing that they lack."""

from __future__ import annotations

from collections.abc import Sequence

from anomaly import Category, open_dataset
from anomaly.progress import Track
from pipelines.console import note
from pipelines.places import cache_folder, find_dataset


def open_categories(datasets: Sequence[str], only: Sequence[str], *, track: Track) -> list[Category]:
    """The categories of all `datasets`, or those named in `only`; says which metrics will be n/a.

    Raises:
        AnomalyError: no such dataset or category.
    """
    categories = [
        category
        for name in datasets
        for category in open_dataset(find_dataset(name), cache=cache_folder(), only=only, track=track)
    ]
    for category in categories:
        name = f"{category.dataset}/{category.name}"
        if not category.is_two_sided:
            note(f"{name}: the test split holds good or defective images alone, so its metrics are n/a")
        elif not category.has_masks:
            note(f"{name}: no masks, so its pixel metrics are n/a")
    return categories
