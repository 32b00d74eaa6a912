"""The threshold of the image score, set on good images alone.

Each good image is scored by a bank that was filled without it: the images are dealt into folds, and a fold is scored
by the bank of the others (cross-fitting, Barber et al. 2021, arXiv 1905.02928). All images serve both ends, where a
held-out share would leave a fifth of them to read a rare quantile off. The final bank is filled from all images; it
knows more than each of those that scored, so good images score a little lower in it, and the threshold errs towards
fewer false alarms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from anomaly.errors import AnomalyError
from anomaly.patchcore import PatchCore
from anomaly.progress import Track, quiet
from anomaly.scoring import image_scores

FOLDS = 5


@dataclass(frozen=True)
class Threshold:
    """An image with a score above `value` is defective.

    Attributes:
        quantile: the share of good images meant to score no higher, in (0, 1).
        attained: the share that the number of images can vouch for: `quantile`, or n / (n + 1) if that is less.
        images: n, the good images it was set on.
    """

    value: float
    quantile: float
    attained: float
    images: int


def held_out_scores(
    detector: PatchCore, patches: Tensor, *, size: int, folds: int = FOLDS, track: Track = quiet
) -> Tensor:
    """The score (N,) of each good image by a bank of `size` vectors that was filled from other images.

    The detector's own bank stays as it was. Which image lies in which fold follows from the detector's seed.

    Args:
        patches: patch features (N, H, W, D), N at least 2; as many folds as images if those are fewer.

    Raises:
        AnomalyError: fewer than 2 images.
    """
    count = len(patches)
    if count < 2:
        raise AnomalyError(f"{count} good images leave none to hold out: a threshold needs 2 at least, better 100")
    dealt = torch.randperm(count, generator=torch.Generator().manual_seed(detector.seed)) % min(folds, count)
    scores = torch.empty(count)
    for fold in track(range(min(folds, count)), "held-out scores", min(folds, count)):
        out = dealt == fold
        others = patches[~out].flatten(0, 2)
        bank = detector.choose_bank(others, size=min(size, len(others)))
        distances = bank.nearest(patches[out].flatten(0, 2)).view(patches[out].shape[:3])
        scores[out] = image_scores(distances)
    return scores


def threshold_of(scores: Tensor, quantile: float) -> Threshold:
    """The ceil((n + 1) quantile)-th smallest of n held-out scores (split conformal prediction, Lei et al. 2018).

    The score of a new good image, exchangeable with them, lies above it with a probability of 1 - quantile at most.
    Where n is too small for that, below quantile / (1 - quantile), it is the largest score.

    Args:
        scores: (N,), N at least 1.
        quantile: in (0, 1).

    Raises:
        AnomalyError: a quantile outside (0, 1), or a threshold of 0: all good images are equal.
    """
    check_quantile(quantile)
    count = len(scores)
    rank = math.ceil(round((count + 1) * quantile, 9))
    value = float(scores.sort().values[min(rank, count) - 1])
    if not value > 0:
        raise AnomalyError("held-out good images score 0, as copies of each other do: add others")
    return Threshold(value, quantile, min(quantile, count / (count + 1)), count)


def check_quantile(quantile: float) -> None:
    """Raises AnomalyError for a quantile outside (0, 1)."""
    if not 0 < quantile < 1:
        raise AnomalyError(f"quantile {quantile} is outside (0, 1): 0.99 lets 1 good image of 100 pass for defective")
