"""What a user names as images: files, folders, globs, a video, a camera."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from prunecore_runtime.errors import DetectorError, ImageError
from prunecore_runtime.images import SUFFIXES, read_image
from prunecore_runtime.regular_file import why_no_file

_DIGITS = 9  # of a camera's number, which OpenCV takes as an int of C
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


@dataclass(frozen=True)
class Picture:
    """An image by its name, or why it cannot be had."""

    name: str
    image: Image.Image | ImageError


def pictures(names: Sequence[str]) -> Iterator[Picture]:
    """The images that `names` stand for, each read when it is asked for.

    A name is an image file, a folder (all images and videos in it and in its folders, by name), a glob with * ? or [,
    a video file, or the number of a camera. What cannot be read comes as an `ImageError`, and the next one follows.

    Raises:
        DetectorError: before any image is read: a name that stands for nothing or cannot be looked up, or a video
            without OpenCV.
    """
    try:
        sources = [source for name in names for source in _sources(name)]
    except OSError as error:  # a name that is too long, a folder on a disk that is gone
        raise DetectorError(f"cannot look for images: {error}") from error
    if any(isinstance(source, int) or source.suffix.lower() in VIDEO_SUFFIXES for source in sources):
        _opencv()
    return (picture for source in sources for picture in _read(source))


def _sources(name: str) -> list[Path | int]:
    """Files, and cameras by their numbers."""
    path = Path(name)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _is_wanted(file.relative_to(path)) and not file.is_dir())
        if not found:
            raise DetectorError(f"folder {name} holds no images: they end in {', '.join(sorted(SUFFIXES))}")
        return list(found)
    if path.exists():
        return [path]
    if name.isascii() and name.isdigit() and len(name) <= _DIGITS:
        return [int(name)]
    if any(sign in name for sign in "*?["):
        matches = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 absolute ones too
        found = [match for match in matches if not match.is_dir()]
        if not found:
            raise DetectorError(f"no file matches {name!r}: check the pattern")
        return list(found)
    raise DetectorError(f"no such image, folder or video: {name}")


def _is_wanted(file: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.parts)
    return not hidden and file.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES


def _read(source: Path | int) -> Iterator[Picture]:
    if isinstance(source, int) or source.suffix.lower() in VIDEO_SUFFIXES:
        yield from _frames(source)
        return
    try:
        yield Picture(str(source), read_image(source))
    except ImageError as error:
        yield Picture(str(source), error)


def _frames(source: Path | int) -> Iterator[Picture]:
    cv2 = _opencv()
    what = f"camera {source}" if isinstance(source, int) else f"video {source}"
    if isinstance(source, Path) and source.exists() and (complaint := why_no_file(source)):
        yield Picture(what, ImageError(f"video {complaint}"))
        return
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    try:
        if not capture.isOpened():
            cure = "check its number" if isinstance(source, int) else "replace or remove it"
            yield Picture(what, ImageError(f"{what} cannot be opened: {cure}"))
            return
        promised = 0 if isinstance(source, int) else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        count = 0
        while True:
            there, frame = capture.read()
            if not there:
                break
            yield Picture(f"{source}#{count}", Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)))
            count += 1
        if isinstance(source, int) or count < max(promised, 1):
            told = f" of {promised}" if promised > 0 else ""
            yield Picture(what, ImageError(f"{what} ended after frame {count}{told}: what came before is scored"))
    finally:
        capture.release()


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise DetectorError(
            "videos and cameras are read by OpenCV, which is not here: pip install opencv-python-headless"
        ) from error
    return cv2
