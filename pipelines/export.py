"""A fitted detector as one ONNX file, proved equal to the one that Python runs before it is written."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from anomaly import AnomalyError
from anomaly.export import BankPrecision, detector_graph
from anomaly.synthetic_defects import paint_defects
from compress.artifact import versions
from compress.backbone import UNPRUNED
from compress.errors import CompressError
from compress.export import OnnxBackbone, to_graph
from compress.files import atomic_write, require_writable
from pipelines.detector_file import FittedDetector
from pipelines.models import precision_of
from prunecore_runtime import Detector
from prunecore_runtime.detector import FORMAT, KEY
from prunecore_runtime.images import CROP, MARGIN
from prunecore_runtime.seal import sealed

# Of the range of the scores. A coarser bank holds other vectors, so it may differ more.
TOLERANCE = {BankPrecision.FLOAT32: 1e-3, BankPrecision.FLOAT16: 5e-3, BankPrecision.INT8: 5e-2}
# Maps may differ by so many times more: distances near 0, which no score is made of, suffer from FAISS's own rounding.
MAPS = 5


@dataclass(frozen=True)
class Parity:
    """The largest differences between the file and Python's detector, each as a share of Python's range.

    Python's has the same backbone, int8 if that is int8, and a bank in float32. So this is what the export and the
    bank's precision change; what int8 features change is the detector's `int8_difference`.
    """

    images: int
    score: float
    map: float
    tolerance: float


def export_detector(
    detector: FittedDetector, path: str | os.PathLike[str], precision: BankPrecision = BankPrecision.FLOAT32
) -> Parity:
    """Write `detector` to `path` as the file that `prunecore_runtime` runs.

    Both are run on the detector's training images, as they are and with synthetic defects painted in, so that the
    scores span what a user will see. A file that differs by more than the tolerance is not written; by how much it
    differs is among its metadata, as `parity`.

    Raises:
        CompressError: `path` cannot be written, or the file's scores or maps differ.
    """
    require_writable(path)
    model = _model(detector, precision)
    parity = _compare(detector, _content(model, _metadata(detector, precision)), TOLERANCE[precision])
    if not (parity.score <= parity.tolerance and parity.map <= MAPS * parity.tolerance):  # a NaN is no parity either
        raise CompressError(
            f"the exported detector's scores are off by {parity.score:.2g} of their range ({parity.tolerance:g} is "
            f"allowed), its maps by {parity.map:.2g} ({MAPS * parity.tolerance:g}): choose a finer --bank-precision"
        )
    metadata = {**_metadata(detector, precision), "parity": dataclasses.asdict(parity)}
    atomic_write(path, _content(model, metadata))
    return parity


def _model(detector: FittedDetector, precision: BankPrecision) -> onnx.ModelProto:
    """The graph, unchecked; raises CompressError for a backbone that has no form in ONNX, or takes other images."""
    backbone = detector.backbone
    try:
        return detector_graph(
            backbone.model if isinstance(backbone, OnnxBackbone) else to_graph(backbone).model,
            mean=backbone.mean,
            std=backbone.std,
            bank=detector.bank.numpy(),
            threshold=detector.description.threshold.value,
            precision=precision,
        )
    except AnomalyError as error:
        raise CompressError(f"{backbone.spec.arch}: {error}") from error


def _content(model: onnx.ModelProto, metadata: Mapping[str, object]) -> bytes:
    """The file: the graph, what it says of itself, and its seal."""
    onnx.helper.set_model_props(model, {KEY: json.dumps(metadata, sort_keys=True)})
    return sealed(model.SerializeToString())


def _metadata(detector: FittedDetector, precision: BankPrecision) -> dict[str, object]:
    backbone, pruning = detector.backbone, detector.backbone.spec.pruning or UNPRUNED
    return {
        **detector.description.as_json(),
        "format": FORMAT,
        "exported_with": {**versions(), "onnx": onnx.__version__},
        "bank": {"vectors": len(detector.bank), "dimensions": detector.bank.shape[1], "precision": precision.value},
        "backbone": {
            "arch": backbone.spec.arch,
            "taps": list(backbone.spec.taps),
            "precision": precision_of(backbone),
            "method": pruning.method,
            "ratio": pruning.ratio,
            "recover": pruning.recover,
        },
    }


def _compare(detector: FittedDetector, content: bytes, tolerance: float) -> Parity:
    images = parity_images(detector)
    cropped = images[:, MARGIN : MARGIN + CROP, MARGIN : MARGIN + CROP]
    expected = detector.patchcore().predict(torch.from_numpy(cropped).permute(0, 3, 1, 2).contiguous())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "detector.onnx")
        file.write_bytes(content)
        found = Detector(file).run(images)
    return Parity(
        len(images),
        _deviation(expected.scores.numpy(), found.scores),
        _deviation(expected.maps.numpy(), found.maps),
        tolerance,
    )


def parity_images(detector: FittedDetector) -> NDArray[np.uint8]:
    """The detector's training images, uint8 (2 N, 256, 256, 3), and the same with a synthetic defect in each."""
    good = detector.images.numpy()
    pixels, _ = paint_defects(detector.images.permute(0, 3, 1, 2).contiguous(), np.random.default_rng(0))
    return np.concatenate([good, pixels.permute(0, 2, 3, 1).numpy()])


def _deviation(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    return float(np.abs(expected - found).max() / np.ptp(expected))
