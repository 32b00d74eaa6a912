"""From folders that a user names to the images that `compress` trains and calibrates on.

Whoever evaluates on a dataset keeps its test images out of these folders: a backbone recovered on them has seen
the exam. A category's good training images are fair, and come in through `also`.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from anomaly import DATASETS, AnomalyError, open_dataset
from anomaly.images import list_images, read_image
from anomaly.progress import Track, quiet
from compress.drawn_images import DrawnImages
from compress.errors import CompressError, some_of
from compress.files import sha256_of_file
from compress.lazy_sequence import LazySequence
from pipelines.console import note
from pipelines.places import cache_folder, find_dataset
from prunecore_runtime.images import SUFFIXES

SHORT_SIDE = 256  # pixels; larger images are shrunk to it, smaller ones stay as they are
MEMORY = 1 << 30  # bytes of decoded images that are kept: about 4,000 photographs
DRAWN = {"textures": 1000, "scenes": 500}  # how many, of what needs no files
_SPLITS = {"train", "training", "val", "valid", "validation", "test"}


class _Source(NamedTuple):
    title: str  # what messages call it
    files: dict[str, Path]  # under the names that the fingerprint has for them, the same on every machine


class _File(NamedTuple):
    path: Path
    name: str
    bytes: int
    source: int  # number of the folder that it came from


class ImageSet(LazySequence[Tensor]):
    """Images in a fixed order: `images[i]` is uint8 RGB (3, H, W), the shorter side at most 256 pixels.

    Those within `MEMORY` lie decoded in memory, and are not to be changed; the others are decoded at each access.
    One of these that proves damaged is stood in for by the next readable one, so that a long training goes on and
    a repeated one sees the same images. Several threads may read at once.

    Attributes:
        fingerprint: SHA-256 over the names of all files, the contents of those in memory and the sizes of the others.
    """

    def __init__(self, files: Sequence[_File], decoded: Mapping[int, Tensor], fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._files = files
        self._decoded = decoded  # at least one of every source
        self._damaged: set[int] = set()
        # Reading one image silences warnings for the whole process, which two threads cannot do at a time.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    def _item(self, place: int) -> Tensor:
        return self.find(place)[0]

    def find(self, place: int) -> tuple[Tensor, int]:
        """The first readable image from `place` on, and the number of the folder it came from."""
        while place not in self._decoded:
            if place not in self._damaged:
                try:
                    with self._lock:
                        return _decode(self._files[place].path), self._files[place].source
                except AnomalyError as error:
                    if not self._damaged:
                        note(f"{error}; the next readable image stands in for it, and for others like it")
                    self._damaged.add(place)
            place = (place + 1) % len(self)
        return self._decoded[place], self._files[place].source


class JoinedImages(LazySequence[Tensor]):
    """Several sets, one after the other."""

    def __init__(self, parts: Sequence[ImageSet | DrawnImages]) -> None:
        self.fingerprint = " ".join(part.fingerprint for part in parts)
        self._parts = parts
        self._ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def _item(self, place: int) -> Tensor:
        number = bisect.bisect_right(self._ends, place)
        part = self._parts[number]
        return part[place - self._ends[number] + len(part)]


UnlabelledImages: TypeAlias = ImageSet | DrawnImages | JoinedImages


class LabelledImages(LazySequence[tuple[Tensor, int]]):
    """Images as `ImageSet` has them, each with the number of its class; `classes` are their names, in order."""

    def __init__(self, images: ImageSet, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.fingerprint = images.fingerprint
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def _item(self, place: int) -> tuple[Tensor, int]:
        return self.images.find(place)


def open_images(folders: Sequence[str | Path], *, also: Sequence[Path] = (), track: Track = quiet) -> UnlabelledImages:
    """All images below `folders`, by name, folder after folder; every image counts once, however it is reached.

    The name of a registered dataset stands for its good training images, `textures` and `scenes` for images that are
    drawn at random (`compress.drawn_images`); they come last. A folder of such a name is meant by `./scenes`.

    Hidden files and folders are passed over, links are followed. Images that cannot be read are left out with a note.

    Args:
        folders: folders here or, by name, in `PRUNECORE_DATA`; names in `DATASETS` or `DRAWN`.
        also: further files, such as a category's good training images.

    Raises:
        CompressError: nothing is given, a folder is missing or may not be read, or has no readable image.
    """
    if not folders and not also:
        raise CompressError("no images given: name a folder of them with --images DIR")
    drawn = [_drawn(str(folder)) for folder in folders if str(folder) in DRAWN]
    sources = [
        _good_images(str(folder), track) if str(folder) in DATASETS else _source(_found(folder), str(number))
        for number, folder in enumerate(folders)
        if str(folder) not in DRAWN
    ]
    if also:
        # Names alone can be there twice: train/good/000.png of two categories.
        sources.append(_Source("further files", {f"also/{n}/{file.name}": file for n, file in enumerate(also)}))
    parts: list[ImageSet | DrawnImages] = [_read(sources, track)] if sources else []
    parts += drawn
    return JoinedImages(parts) if len(parts) > 1 else parts[0]


def open_labelled_images(folder: str | Path, *, track: Track = quiet) -> LabelledImages:
    """The images below `folder`, which has a folder for each class (torchvision's `ImageFolder`, ImageNet's layout).

    Classes are numbered in the order of their names.

    Raises:
        CompressError: as `open_images`; fewer than two classes, images beside them, or splits in their place.
    """
    place = _found(folder)
    with _refusing_what_the_system_refuses():
        classes = sorted(each.name for each in place.iterdir() if each.is_dir() and not each.name.startswith("."))
        loose = list_images(place)
    if len(classes) < 2:
        raise CompressError(
            f"{place} holds {len(classes)} folders of classes, and at least 2 are needed: put the images of each "
            "class into a folder of its own, or recover by distillation, which needs no labels"
        )
    if loose:
        raise CompressError(f"{loose[0]} lies beside the folders of the classes: move it into one or take it away")
    if _SPLITS.issuperset(name.lower() for name in classes):
        raise CompressError(f"the folders in {place} are splits ({', '.join(classes)}), not classes: name one of them")
    return LabelledImages(_read([_source(place / name, name) for name in classes], track), tuple(classes))


@functools.cache
def _drawn(kind: str) -> DrawnImages:
    """The images of that kind; one drawing serves all who ask."""
    return DrawnImages(kind, DRAWN[kind])


def _found(name: str | Path) -> Path:
    folder = Path(find_dataset(str(name)))
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise CompressError(f"the folder of images {folder} {what}: name a folder that holds images")
    return folder


def _good_images(dataset: str, track: Track) -> _Source:
    """What a dataset trains on; its test images are not for us."""
    categories = open_dataset(dataset, cache=cache_folder(), track=track)
    files = {f"{each.name}/{sample.image.name}": sample.image for each in categories for sample in each.train}
    return _Source(dataset, {f"{dataset}/{name}": file for name, file in files.items()})


def _source(folder: Path, name: str) -> _Source:
    with _refusing_what_the_system_refuses():
        found = sorted((file.relative_to(folder) for file in _images_below(folder)), key=lambda file: file.parts)
    if not found:
        raise CompressError(f"no images in {folder} or below: add some ({', '.join(sorted(SUFFIXES))}) or leave it out")
    return _Source(str(folder), {f"{name}/{file.as_posix()}": folder / file for file in found})


def _images_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    visited = set()
    for place, folders, _ in os.walk(folder, followlinks=True, onerror=refuse):
        identity = _identity(Path(place).stat())
        if identity in visited:  # through a link, perhaps to a folder that the link lies in
            folders.clear()
            continue
        visited.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from list_images(Path(place))


def _read(sources: Sequence[_Source], track: Track) -> ImageSet:
    """Decode what fits into `MEMORY`, and of every source at least one image, so that each is known to have one."""
    with _refusing_what_the_system_refuses():
        files = list(_distinct(sources))
    kept: list[_File] = []
    decoded: dict[int, Tensor] = {}
    failed: dict[int, list[AnomalyError]] = {}
    readable = set()
    memory = 0
    digest = hashlib.sha256()
    for file in track(files, "reading images", len(files)):
        content = ""
        if memory < MEMORY or file.source not in readable:
            try:
                image = _decode(file.path)
            except AnomalyError as error:
                failed.setdefault(file.source, []).append(error)
                continue
            content = sha256_of_file(file.path)
            decoded[len(kept)] = image
            memory += image.nbytes
            readable.add(file.source)
        digest.update(os.fsencode(f"{file.name}\0{file.bytes}\0{content}\0"))
        kept.append(file)
    for source, errors in failed.items():
        if source not in readable:
            raise CompressError(f"{sources[source].title} has no image that can be read, of {len(errors)}: {errors[0]}")
    if left_out := [error for errors in failed.values() for error in errors]:
        note(f"{len(left_out)} of {len(files)} images are left out: {some_of(map(str, left_out), 3)}")
    return ImageSet(kept, decoded, digest.hexdigest())


def _distinct(sources: Sequence[_Source]) -> Iterator[_File]:
    """The files of all sources, each once."""
    seen = set()
    for number, source in enumerate(sources):
        for name, path in source.files.items():
            status = path.stat()
            if _identity(status) not in seen:
                seen.add(_identity(status))
                yield _File(path, name, status.st_size, number)


def _identity(status: os.stat_result) -> tuple[int, int]:
    """What two paths to one file have in common."""
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _refusing_what_the_system_refuses() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CompressError(f"cannot read {error.filename}: {error.strerror}; make it readable or remove it") from error


def _decode(file: Path) -> Tensor:
    image = read_image(file, at_least=SHORT_SIDE)
    shorter = min(image.size)
    if shorter > SHORT_SIDE:
        width, height = (round(side * SHORT_SIDE / shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels: Tensor = pil_to_tensor(image)
    return pixels
