"""From what a user asks for to an int8 backbone: the calibration images, the drop on a validation split, the times."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, NamedTuple

import torch

from anomaly import Category
from anomaly.progress import Track, quiet
from compress import Backbone, Calibration, CompressError, MaxDrop, OnnxBackbone, quantize
from compress.quantization import check_backend, check_images
from pipelines.drop_search import check_drop
from pipelines.evaluate import DetectorSettings
from pipelines.image_sets import UnlabelledImages
from pipelines.validation import validation_auroc, validation_split
from pipelines.within_drop import NEAR_CHANCE

PAUSE = 0.03  # seconds
ROUNDS = 30
UNTIMED, TIMED = 5, 5  # images in each turn
# Raise it when the same inputs make another int8 file: float artifacts, which took hours, are kept.
_PROCEDURE = 4


@dataclass(frozen=True)
class Quantizing:
    """How a backbone is made int8: on which images its ranges are found, what stays float, and what will run it."""

    images: UnlabelledImages
    calibration: Calibration
    keep_float: tuple[str, ...]
    backend: str

    def check(self) -> None:
        """Refuse, before any work, too few images, a backend that is not here, and a calibration that it does not read.

        Raises:
            CompressError: see above.
        """
        check_images(self.images)
        check_backend(self.backend, self.calibration)

    def quantize(self, backbone: Backbone, *, track: Track = quiet) -> OnnxBackbone:
        """See `compress.quantize`."""
        return quantize(
            backbone,
            self.images,
            calibration=self.calibration,
            keep_float=self.keep_float,
            backend=self.backend,
            track=track,
        )

    def asked(self) -> dict[str, Any]:
        """All that the result depends on besides the float backbone, as JSON values."""
        calibration = dataclasses.asdict(self.calibration)
        if self.calibration.method != "percentile":  # which then is not read
            del calibration["percentile"]
        return {
            **calibration,
            "keep_float": sorted(self.keep_float),
            "backend": self.backend,
            "images": self.images.fingerprint,
            "procedure": _PROCEDURE,
        }


def validation_drop(
    backbone: Backbone, categories: Sequence[Category], drop: float, *, seed: int = 0, track: Track = quiet
) -> MaxDrop:
    """The image AUROC that int8 loses against `backbone` on validation splits, the mean over `categories`.

    Judged on a validation split of each category's training images with painted defects; test images are not opened.

    Raises:
        CompressError: a drop outside [0, 1), or a `backbone` that detects nothing.
    """
    check_drop(drop)
    splits = [validation_split(category, seed=seed) for category in categories]
    settings = DetectorSettings(seed=seed)

    def score(network: Backbone | OnnxBackbone) -> float:
        return fmean(validation_auroc(network, split, settings, track=track).image for split in splits)

    float_score = score(backbone)
    if float_score < NEAR_CHANCE:
        raise CompressError(
            f"this {backbone.spec.arch} has an AUROC of {float_score:.3f} on the validation split in float, and below "
            f"{NEAR_CHANCE} a drop means nothing: give pretrained weights"
        )
    return MaxDrop("drop of validation image AUROC", drop, lambda candidate: float_score - score(candidate))


class Latency(NamedTuple):
    """Milliseconds of one image, medians.

    Attributes:
        steady: one image after another.
        woken: the first image after a pause, when threads sleep and caches hold other things.
    """

    steady: float
    woken: float


@torch.inference_mode()
def alternating_latency(backbones: Sequence[Backbone | OnnxBackbone], *, rounds: int = ROUNDS) -> list[Latency]:
    """How long each backbone takes for one image, measured in turns, so that a slow second slows all.

    The threads of PyTorch, ONNX Runtime and OpenVINO wait for more work on a busy core, for milliseconds after each
    run. So each turn begins with a pause; then come `UNTIMED` images, of which the first is the woken one, and `TIMED`.
    """
    side = backbones[0].spec.size
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    times: list[list[list[float]]] = [[] for _ in backbones]
    for turn in range(1 + rounds):
        for own, backbone in zip(times, backbones, strict=True):
            time.sleep(PAUSE)
            marks = [time.perf_counter()]
            for _ in range(UNTIMED + TIMED):
                backbone(image)
                marks.append(time.perf_counter())
            if turn:  # the first one also plans and allocates
                own.append([(later - before) * 1000 for before, later in itertools.pairwise(marks)])
    return [
        Latency(median(itertools.chain.from_iterable(turn[UNTIMED:] for turn in own)), median(turn[0] for turn in own))
        for own in times
    ]
