"""The registry of datasets: those with a name, and the folder layouts that are told apart by looking."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.datasets.elpv import read_elpv
from anomaly.datasets.folder import is_plain_folder, read_folder
from anomaly.datasets.generated import read_generated
from anomaly.datasets.mvtec import is_mvtec, read_mvtec
from anomaly.errors import AnomalyError
from anomaly.progress import Track, quiet
from anomaly.samples import Category
from prunecore_runtime.regular_file import why_no_file


@dataclass(frozen=True)
class Named:
    """A dataset with a name. `read(cache, track)` may make files in `cache`."""

    read: Callable[[Path, Track], list[Category]]
    summary: str


@dataclass(frozen=True)
class Layout:
    """A folder layout. `read(folder, train_only)` is told whether anything is to be judged, as `open_dataset` is."""

    matches: Callable[[Path], bool]
    read: Callable[[Path, bool], list[Category]]
    summary: str


DATASETS: dict[str, Named] = {
    "generated": Named(read_generated, "four synthetic surfaces with exact masks, made here from a seed"),
    "elpv": Named(
        lambda cache, track: read_elpv(), "2,624 solar cells, image labels only (pip install 'prunecore[elpv]')"
    ),
}
"""Datasets that have a name of their own."""

LAYOUTS: dict[str, Layout] = {
    "mvtec": Layout(
        is_mvtec,
        lambda folder, train_only: read_mvtec(folder),
        "CATEGORY/train/good, CATEGORY/test/KIND, CATEGORY/ground_truth/KIND",
    ),
    "folder": Layout(
        is_plain_folder,
        lambda folder, train_only: read_folder(folder, train_only=train_only),
        "good/, bad/ and, if there are masks, masks/",
    ),
}
"""Layouts of a folder, in the order in which `open_dataset` tries them."""


def open_dataset(
    name: str, *, cache: str | Path, only: Sequence[str] = (), train_only: bool = False, track: Track = quiet
) -> list[Category]:
    """The categories of a named dataset or of a folder.

    Args:
        name: a name in `DATASETS`, or a folder in one of `LAYOUTS`.
        cache: where a generated dataset is kept; made on demand.
        only: names of the categories wanted; all by default.
        train_only: for a detector that nobody judges here: a category needs no test images, and where a folder has
            nothing in bad/ all of good/ trains.

    Raises:
        AnomalyError: no such dataset or category, a folder in no known layout, or a category without test images.
    """
    try:
        read = DATASETS[name].read(Path(cache), track) if name in DATASETS else _read_folder(Path(name), train_only)
    except OSError as error:
        raise AnomalyError(f"cannot read dataset {name}: {error.strerror} ({error.filename})") from error
    by_name = {category.name: category for category in read}
    for wanted in only:
        if wanted not in by_name:
            raise AnomalyError(f"{name} has no category {wanted!r}: choose from {', '.join(by_name)}")
    chosen = [category for category in read if not only or category.name in only]
    if not train_only:
        for category in chosen:
            category.require_test()
    return chosen


def fingerprint(category: Category) -> str:
    """SHA-256 over kind, name and bytes of every file of the category, in order."""
    digest = hashlib.sha256()
    for split, samples in (("train", category.train), ("test", category.test)):
        for sample in samples:
            for file in filter(None, (sample.image, sample.mask)):
                try:
                    if complaint := why_no_file(file):
                        raise AnomalyError(complaint)
                    content = file.read_bytes()
                except OSError as error:
                    raise AnomalyError(f"cannot read {file}: {error.strerror}") from error
                # A name may be any bytes.
                digest.update(os.fsencode(f"{split}/{sample.kind}/{file.name}/{len(content)}"))
                digest.update(content)
    return digest.hexdigest()


def _read_folder(folder: Path, train_only: bool) -> list[Category]:
    if not folder.is_dir():
        near = difflib.get_close_matches(str(folder), DATASETS, n=1, cutoff=0.5)
        guess = f"did you mean {near[0]}?" if near else f"named datasets are {', '.join(DATASETS)}"
        raise AnomalyError(f"no dataset {str(folder)!r}, and no folder of that name: {guess}")
    for layout in LAYOUTS.values():
        if layout.matches(folder):
            return layout.read(folder, train_only)
    layouts = "; ".join(f"{name}: {layout.summary}" for name, layout in LAYOUTS.items())
    raise AnomalyError(f"{folder} is in no known layout. {layouts}")
