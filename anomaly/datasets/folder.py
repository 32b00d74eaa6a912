"""A plain folder: good/ and bad/ images, and masks/ for the bad ones if there are any."""

from __future__ import annotations

from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.images import list_images
from anomaly.samples import GOOD, Category, Sample, split_good

BAD = "bad"
MASKS = "masks"


def is_plain_folder(folder: Path) -> bool:
    """Whether `folder` has this layout."""
    return (folder / GOOD).is_dir()


def read_folder(folder: Path, *, train_only: bool = False) -> list[Category]:
    """The one category in `folder`. Of the good images a fixed random 70 % train, the rest and all of bad/ test.

    With `train_only` and nothing in bad/ all good images train.
    Masks lie in masks/ under the bad image's name, as `NAME.png` or `NAME_mask.png`: for all or for none.

    Raises:
        AnomalyError: fewer than two good images, or files in bad/ or masks/ that are not understood.
    """
    good = [Sample(image, GOOD) for image in list_images(folder / GOOD)]
    if len(good) < 2:
        raise AnomalyError(f"{folder / GOOD} holds {len(good)} images: at least 2 are needed, to train and to test")
    bad = list_images(folder / BAD) if (folder / BAD).is_dir() else []
    if not bad and (folder / BAD).is_dir() and any((folder / BAD).iterdir()):
        raise AnomalyError(f"{folder / BAD} holds no images: put them right into it, not into folders of their own")
    train, held_out = (tuple(good), ()) if train_only and not bad else split_good(good)
    defective = [Sample(image, BAD, _mask_of(folder, image)) for image in bad]
    if (folder / MASKS).is_dir() and any((folder / MASKS).iterdir()) and not any(sample.mask for sample in defective):
        raise AnomalyError(f"{folder / MASKS} holds no mask of a bad image: name them like the images, NAME.png")
    name = folder.resolve().name
    return [Category(name, name, train, (*held_out, *defective))]


def _mask_of(folder: Path, image: Path) -> Path | None:
    candidates = (folder / MASKS / f"{image.stem}.png", folder / MASKS / f"{image.stem}_mask.png")
    return next((file for file in candidates if file.is_file()), None)
