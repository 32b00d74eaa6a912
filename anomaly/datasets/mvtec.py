"""The MVTec AD folder layout: CATEGORY/train/good, CATEGORY/test/KIND, CATEGORY/ground_truth/KIND/NAME_mask.png.

Without CATEGORY/test a detector can be fitted, and nothing be judged.
"""

from __future__ import annotations

from pathlib import Path

from anomaly.images import list_images
from anomaly.samples import GOOD, Category, Sample


def is_mvtec(folder: Path) -> bool:
    """Whether `folder` is a category of this layout or holds some."""
    return _is_category(folder) or any(_is_category(child) for child in folder.iterdir())


def read_mvtec(folder: Path, dataset: str | None = None) -> list[Category]:
    """Every category in `folder`, by name; `folder` may itself be one. The dataset is named after the folder."""
    name = dataset or folder.resolve().name
    if _is_category(folder):
        return [_read_category(folder, name)]
    return [_read_category(child, name) for child in sorted(folder.iterdir()) if _is_category(child)]


def _is_category(folder: Path) -> bool:
    return (folder / "train" / GOOD).is_dir()


def _read_category(folder: Path, dataset: str) -> Category:
    train = tuple(Sample(image, GOOD) for image in list_images(folder / "train" / GOOD))
    tests = folder / "test"
    test = tuple(
        Sample(image, kind.name, _mask_of(folder, kind.name, image))
        for kind in (sorted(child for child in tests.iterdir() if child.is_dir()) if tests.is_dir() else ())
        for image in list_images(kind)
    )
    return Category(dataset, folder.resolve().name, train, test)


def _mask_of(folder: Path, kind: str, image: Path) -> Path | None:
    if kind == GOOD:
        return None
    truth = folder / "ground_truth" / kind
    candidates = (truth / f"{image.stem}_mask.png", truth / f"{image.stem}.png", truth / image.name)
    return next((file for file in candidates if file.is_file()), None)
