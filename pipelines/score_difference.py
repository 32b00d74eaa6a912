"""How a detector's scores on int8 features differ from its scores on the float features of the same network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from anomaly import Category
from anomaly.progress import Track, quiet
from anomaly.threshold import threshold_of
from compress import Backbone, OnnxBackbone
from compress.artifact import digest_of_tensors
from compress.errors import CompressError
from pipelines.detector_file import ScoreDifference
from pipelines.evaluate import DetectorSettings
from pipelines.models import precision_of
from pipelines.validation import validation_scores, validation_split


def score_difference(
    original: Backbone,
    int8: Backbone | OnnxBackbone,
    category: Category,
    settings: DetectorSettings,
    quantile: float,
    *,
    track: Track = quiet,
) -> ScoreDifference:
    """What rounding `original`, which `int8` was made from, does to the scores of a detector.

    Int8 features are no drop-in for float ones, so each network gets a memory bank of its own. The category's test
    images are not opened.

    Args:
        quantile: of the threshold, in (0, 1).

    Raises:
        CompressError: what `require_origin` refuses, fewer than 24 training images, or scores that are all equal.
        AnomalyError: a damaged image, or settings that make no bank.
    """
    require_origin(int8, original)
    split = validation_split(category, seed=settings.seed)
    float_scores, int8_scores = (
        validation_scores(backbone, split, settings, track=track)[0] for backbone in (original, int8)
    )
    return compared(float_scores, int8_scores, len(split.good), quantile)


def compared(
    float_scores: NDArray[np.float32], int8_scores: NDArray[np.float32], good: int, quantile: float
) -> ScoreDifference:
    """The difference of two detectors' scores (N,) of the same images, of which the first `good` are good.

    Raises:
        CompressError: one detector gives all images one score.
    """
    for name, scores in (("float", float_scores), ("int8", int8_scores)):
        if not np.ptp(scores) > 0:
            raise CompressError(
                f"the {name} scores of {len(scores)} good and painted images are all {scores[0]:g}, which leaves "
                "nothing to compare: give images that differ, or fit without the float network"
            )
    off = np.abs(int8_scores - float_scores) / np.ptp(float_scores)
    decisions = [
        scores[good:] > threshold_of(torch.from_numpy(scores[:good]), quantile).value
        for scores in (float_scores, int8_scores)
    ]
    return ScoreDifference(
        good=good,
        defective=len(off) - good,
        mean=float(off.mean()),
        largest=float(off.max()),
        rank_correlation=float(spearmanr(float_scores, int8_scores).statistic),
        changed=int((decisions[0] != decisions[1]).sum()),
    )


def require_origin(int8: Backbone | OnnxBackbone, original: Backbone) -> None:
    """Raises CompressError where `int8` is not int8, or was not made from `original`."""
    if not isinstance(int8, OnnxBackbone) or int8.precision != "int8":
        raise CompressError(
            f"this {int8.spec.arch} is {precision_of(int8)}, and only an int8 one is compared with the float network "
            "that it was made from: leave that one (--float) out"
        )
    recorded = (int8.header.quantization or {}).get("float_tensors")
    # Files of earlier versions record the description of the network alone.
    if int8.spec != original.spec or recorded not in (None, digest_of_tensors(original)):
        raise CompressError(
            f"the float {original.spec.arch} is not the network that the int8 {int8.spec.arch} was made from: give the "
            "one that compress quantize read"
        )
