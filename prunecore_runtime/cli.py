"""prunecore-predict, and compress predict: JSON lines to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunecore_runtime.detector import Detector, Prediction
from prunecore_runtime.errors import DetectorError, ImageError
from prunecore_runtime.images import cropped, resized
from prunecore_runtime.overlay import overlay
from prunecore_runtime.sources import Picture, pictures

DONE, FAILURES, REFUSED = 0, 1, 2
MOST_AT_ONCE = 10_000  # images: some 10 MB of memory each


def parser(program: str = "prunecore-predict") -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog=program,
        description="Score images with an exported detector. One line of JSON per image goes to stdout: image, score, "
        "normalised (score / threshold), defective, ms. Exit codes: 0 done, 1 some images not read, 2 refused.",
    )
    made.add_argument("detector", help="what compress export made")
    made.add_argument("images", nargs="+", help="files, folders, globs, a video or the number of a camera")
    made.add_argument(
        "--save-maps", metavar="DIR", type=Path, help="write a heat map over each image, as PNG, into DIR"
    )
    made.add_argument("--batch", metavar="N", type=int, default=1, help="images in one run; 1 answers soonest")
    made.add_argument("--threads", metavar="N", type=int, help="threads to compute with; default: one per core")
    made.add_argument("--threshold", metavar="X", type=float, help="of the score, instead of the detector's own")
    return made


def main(arguments: Sequence[str] | None = None, *, program: str = "prunecore-predict") -> int:
    """Parse, predict, print; returns the exit code."""
    given = parser(program).parse_args(arguments)
    try:
        if not 1 <= given.batch <= MOST_AT_ONCE:
            raise DetectorError(f"--batch {given.batch} is outside 1 to {MOST_AT_ONCE}: 1 answers soonest")
        if given.save_maps:
            _make_folder(given.save_maps)
        detector = Detector(given.detector, threads=given.threads, threshold=given.threshold)
        return _predict(detector, pictures(given.images), given.batch, given.save_maps)
    except DetectorError as error:
        _say(f"{program}: {error}")
        return REFUSED
    except BrokenPipeError:  # whoever read the lines has seen enough
        _close_stdout()
        return DONE
    except OSError as error:  # stdout itself, on a full disk
        _close_stdout()
        _say(f"{program}: {error}")
        return REFUSED
    except KeyboardInterrupt:
        _say(f"{program}: interrupted")
        return REFUSED


def _predict(detector: Detector, found: Iterable[Picture], batch: int, maps: Path | None) -> int:
    failures: list[str] = []
    scored = 0
    begin = time.perf_counter()
    try:
        for group in _batches(found, batch, failures):
            start = time.perf_counter()
            prediction = detector.predict([image for _, image in group])
            each = (time.perf_counter() - start) * 1000 / len(group)
            for index, (name, image) in enumerate(group):
                _print(name, prediction, index, each)
                if maps:
                    _save_map(maps, scored + index, name, image, prediction.maps[index], detector.threshold)
            scored += len(group)
    finally:  # also where Ctrl-C ends a camera
        seconds = time.perf_counter() - begin
        _say(f"{scored} images in {seconds:.2f} s: {scored / seconds:.1f} images per second, all included")
    for failure in failures:
        _say(f"not scored: {failure}")
    return FAILURES if failures else DONE


def _batches(found: Iterable[Picture], size: int, failures: list[str]) -> Iterator[list[tuple[str, Image.Image]]]:
    """Groups of `size` readable images; what is not readable goes to `failures`."""

    def readable() -> Iterator[tuple[str, Image.Image]]:
        for picture in found:
            if isinstance(picture.image, ImageError):
                failures.append(str(picture.image))
            else:
                yield picture.name, picture.image

    stream = readable()
    while group := list(islice(stream, size)):
        yield group


def _print(name: str, prediction: Prediction, index: int, milliseconds: float) -> None:
    line = {
        "image": name,
        "score": round(float(prediction.scores[index]), 6),
        "normalised": round(float(prediction.normalised[index]), 6),
        "defective": bool(prediction.defective[index]),
        "ms": round(milliseconds, 3),
    }
    print(json.dumps(line), flush=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DetectorError(f"cannot write maps to {folder}: {error.strerror}") from error


def _save_map(
    folder: Path, number: int, name: str, image: Image.Image, values: NDArray[np.float32], threshold: float
) -> None:
    """The number in front keeps apart what is called alike in different folders."""
    file = folder / f"{number:05}-{Path(name).name.replace('#', '-')}.png"
    picture = Image.fromarray(overlay(np.asarray(cropped(resized(image))), values, threshold))
    try:
        picture.save(file)
    except OSError as error:
        raise DetectorError(f"cannot write {file}: {error.strerror or error}") from error


def _close_stdout() -> None:
    """Python would flush what is left once more at its end, and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
