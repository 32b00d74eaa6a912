"""How a detector's scores on int8 features differ from its scores on the float features of the same network."""

from __future__ import annotations

from dataclasses import dataclass

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
from pipelines.evaluate import DetectorSettings
from pipelines.validation import validation_scores, validation_split


@dataclass(frozen=True)
class ScoreDifference:
    """Int8 against float, both fitted and judged on one validation split: good images, and some with painted defects.

    Attributes:
        good, defective: how many images were scored.
        mean, largest: of |int8 score - float score|, as a share of the range of the float scores.
        rank_correlation: Spearman's, of all images' scores; 1 is one order.
        changed: images on the other side of the threshold. Each detector has a threshold of its own, set on the good
            images.
    """

    good: int
    defective: int
    mean: float
    largest: float
    rank_correlation: float
    changed: int

    def told(self) -> str:
        """In one sentence."""
        return (
            f"int8 against float, on {self.good} good and {self.defective} painted images: scores differ by "
            f"{self.mean:.1%} of their range, {self.largest:.1%} at most; rank correlation "
            f"{self.rank_correlation:.4f}; {self.changed} of {self.good + self.defective} decisions change"
        )


def score_difference(
    original: Backbone,
    int8: OnnxBackbone,
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
        CompressError: `int8` was not made from `original`, or fewer than 24 training images.
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
    """The difference of two detectors' scores (N,) of the same images, of which the first `good` are good."""
    off = np.abs(int8_scores - float_scores) / np.ptp(float_scores)
    decisions = [
        scores > threshold_of(torch.from_numpy(scores[:good]), quantile).value for scores in (float_scores, int8_scores)
    ]
    return ScoreDifference(
        good=good,
        defective=len(off) - good,
        mean=float(off.mean()),
        largest=float(off.max()),
        rank_correlation=float(spearmanr(float_scores, int8_scores).statistic),
        changed=int((decisions[0] != decisions[1]).sum()),
    )


def require_origin(int8: OnnxBackbone, original: Backbone) -> None:
    """Raises CompressError where `int8` was not made from `original`."""
    recorded = (int8.header.quantization or {}).get("float_tensors")
    # Files of earlier versions record the description of the network alone.
    if int8.spec != original.spec or recorded not in (None, digest_of_tensors(original)):
        raise CompressError(
            f"the float {original.spec.arch} is not the network that the int8 {int8.spec.arch} was made from: give the "
            "one that compress quantize read"
        )
