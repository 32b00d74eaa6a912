"""An exported detector: one ONNX file that takes pixels and gives scores and maps."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from prunecore_runtime.errors import DetectorError
from prunecore_runtime.images import read_image, resized
from prunecore_runtime.regular_file import why_no_file
from prunecore_runtime.seal import is_whole
from prunecore_runtime.self_containment import LARGEST, names_other_files
from prunecore_runtime.session import open_session

FORMAT = "prunecore-onnx-detector/1"
KEY = "prunecore"  # of the metadata in the file
PRODUCER = "prunecore-detector"  # stands at the beginning of the file, where a truncated one still has it
MOST_THREADS = 1024  # ONNX Runtime makes all of them at once, with a stack each
INPUT = "images"
OUTPUTS = ("score", "normalised", "map")

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8]"


@dataclass(frozen=True)
class Prediction:
    """What a detector says of N images.

    Attributes:
        scores: (N,) the largest distance of a patch to its nearest normal one, at least 0.
        normalised: (N,) scores / threshold; above 1 is defective.
        defective: (N,) bool.
        maps: (N, 224, 224) the distances at every pixel of the image's centre crop.
    """

    scores: NDArray[np.float32]
    normalised: NDArray[np.float32]
    defective: NDArray[np.bool_]
    maps: NDArray[np.float32]


class Detector:
    """The detector in `file`, which `compress export` made.

    Args:
        threads: that ONNX Runtime computes with; as many as the machine has cores by default.
        threshold: of the image score, in place of the file's own.

    Attributes:
        metadata: what the file tells of itself: the threshold and how it was set, versions, fingerprints.

    Raises:
        DetectorError: the file is missing, damaged, foreign, of a newer format or keeps tensors in other files, or
            `threads` is outside 1 to 1024, or `threshold` not above 0.
    """

    def __init__(
        self, file: str | os.PathLike[str], *, threads: int | None = None, threshold: float | None = None
    ) -> None:
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise DetectorError(f"{threads} threads are outside 1 to {MOST_THREADS}: give one for each core, or fewer")
        if threshold is not None and not 0 < threshold < float("inf"):
            raise DetectorError(f"threshold {threshold} is not above 0: scores are distances")
        content = _read(Path(file))
        try:
            self._session = open_session(content, threads)
        except Exception as error:
            raise DetectorError(
                f"{file} cannot be run by ONNX Runtime {onnxruntime.__version__} ({_first_line(error)}): "
                "export it again, or upgrade onnxruntime"
            ) from error
        _require_ports(Path(file), self._session)
        self.metadata = _metadata(Path(file), self._session.get_modelmeta().custom_metadata_map)
        self.threshold = float(self.metadata["threshold"]["value"]) if threshold is None else threshold
        self._rescaled = threshold is not None

    def predict(self, images: ImageLike | Sequence[ImageLike]) -> Prediction:
        """Scores and maps of one image or of several.

        Args:
            images: a file, a Pillow image or uint8 RGB (H, W, 3), of any size; a list of these; or uint8 (N, H, W, 3).

        Raises:
            DetectorError: no images, or one that cannot be read or has another type or shape.
        """
        if isinstance(images, str | os.PathLike | Image.Image) or (isinstance(images, np.ndarray) and images.ndim == 3):
            images = [images]
        if not len(images):
            raise DetectorError("no images to predict: give one at least")
        return self.run(np.stack([np.asarray(resized(_as_image(image))) for image in images]))

    def run(self, batch: NDArray[np.uint8]) -> Prediction:
        """Scores and maps of uint8 RGB (N, H, W, 3), resized inside the graph unless it is 256 x 256.

        The graph resizes as Pillow does, within one grey level; `predict` lets Pillow do it, which is faster.

        Raises:
            DetectorError: another type or shape, or one without images or pixels, or a graph that cannot be computed.
        """
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3 or not batch.size:
            raise DetectorError(
                f"a batch is {batch.dtype} {batch.shape}, and must be uint8 (N, H, W, 3), none of them 0"
            )
        try:
            scores, normalised, maps = self._session.run(OUTPUTS, {INPUT: batch})
        except Exception as error:
            raise DetectorError(f"ONNX Runtime cannot score a batch {batch.shape} ({_first_line(error)})") from error
        if self._rescaled:
            normalised = scores / np.float32(self.threshold)
        return Prediction(scores, normalised, normalised > 1, maps)


def _read(file: Path) -> bytes:
    try:
        if complaint := why_no_file(file, most=LARGEST):
            raise DetectorError(complaint)
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise DetectorError(f"no such file: {file}") from error
    except OSError as error:
        raise DetectorError(f"cannot read {file}: {error.strerror}") from error
    if is_whole(content):
        _require_self_contained(file, content)
        return content
    if PRODUCER.encode() in content[:64]:
        raise DetectorError(f"{file} is truncated or was changed after it was exported: get it again")
    if content.startswith(b"PK"):
        raise DetectorError(f"{file} is no exported detector: compress export {file} -o FILE.onnx makes one of it")
    raise DetectorError(f"{file} is no detector of ours: compress export makes them")


def _require_self_contained(file: Path, content: bytes) -> None:
    try:
        outside = names_other_files(content)
    except ValueError as error:
        raise DetectorError(f"{file} cannot be run by ONNX Runtime ({error}): export it again") from error
    if outside:
        raise DetectorError(f"{file} keeps tensors in other files, which ours never do: export it again")


def _require_ports(file: Path, session: onnxruntime.InferenceSession) -> None:
    taken, given = ([each.name for each in ports] for ports in (session.get_inputs(), session.get_outputs()))
    if taken != [INPUT] or given != list(OUTPUTS):
        raise DetectorError(f"{file} gives {', '.join(given)}, not {', '.join(OUTPUTS)}: export it again")


def _metadata(file: Path, entries: dict[str, str]) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads(entries[KEY])
        found, threshold = metadata["format"], float(metadata["threshold"]["value"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DetectorError(f"{file} does not tell its format and threshold: export it again") from error
    if found != FORMAT:
        raise DetectorError(f"{file} has format {found}, this version reads {FORMAT}: upgrade prunecore")
    if not 0 < threshold < float("inf"):
        raise DetectorError(f"{file} has threshold {threshold}, which is not above 0: export it again")
    return metadata


def _as_image(image: ImageLike) -> Image.Image:
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        if not image.width * image.height:
            raise DetectorError(f"an image has {image.width} x {image.height} pixels: leave it out")
        return image if image.mode == "RGB" else image.convert("RGB")
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise DetectorError(f"an image is {array.dtype} {array.shape}, and must be uint8 (H, W, 3), RGB")
    return Image.fromarray(array)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
