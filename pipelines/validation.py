"""A validation split made of good training images and synthetic defects, so that the test split stays unseen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly import Category, auroc, load_batches
from anomaly.features import BATCH
from anomaly.progress import Track, quiet
from anomaly.samples import Sample
from anomaly.synthetic_defects import paint_defects
from compress import Backbone, OnnxBackbone
from compress.errors import CompressError
from pipelines.evaluate import DetectorSettings, score

HELD_OUT_SHARE = 0.2
HELD_OUT = (8, 100)  # images, at least and at most
FIT = (16, 200)  # images to fit the detector on; more would only slow down a search that fits ten detectors
DEFECTIVE = 200  # at least so many defective images: few held-out images are painted several times over


@dataclass(frozen=True)
class ValidationSplit:
    """What a detector is fitted on and judged on, all of it out of a category's training images.

    `good` (G, 3, 224, 224) and `defective` (D, 3, 224, 224) are uint8 RGB, `masks` (D, 224, 224) bool. The defective
    images are the good ones, each with a synthetic defect, ceil(200 / G) times over.
    """

    fit: tuple[Sample, ...]
    good: Tensor
    defective: Tensor
    masks: Tensor


def validation_split(category: Category, *, seed: int = 0) -> ValidationSplit:
    """Holds out a random fifth of the training images, 8 to 100; the detector gets the rest, 200 at most.

    The category's test images are not opened. The held-out pixels stay in memory: 45 MB where 100 are held out.

    Raises:
        CompressError: fewer than 24 training images.
        AnomalyError: a damaged image.
    """
    count = len(category.train)
    needed = HELD_OUT[0] + FIT[0]
    if count < needed:
        raise CompressError(
            f"{category.dataset}/{category.name} has {count} training images, and a validation split needs {needed} "
            f"({HELD_OUT[0]} to hold out, {FIT[0]} to fit on): add good images"
        )
    held_out = min(max(round(count * HELD_OUT_SHARE), HELD_OUT[0]), HELD_OUT[1])
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    good = torch.cat(list(load_batches([category.train[index] for index in sorted(order[:held_out])], BATCH)))
    carriers = good.repeat(math.ceil(DEFECTIVE / held_out), 1, 1, 1)
    defective, masks = paint_defects(carriers, rng)
    fit = tuple(category.train[index] for index in sorted(order[held_out : held_out + FIT[1]]))
    return ValidationSplit(fit, good, defective, masks)


@dataclass(frozen=True)
class ValidationAuroc:
    """AUROC of images and of pixels, both in [0, 1]."""

    image: float
    pixel: float


def validation_auroc(
    backbone: Backbone | OnnxBackbone, split: ValidationSplit, settings: DetectorSettings, *, track: Track = quiet
) -> ValidationAuroc:
    """PatchCore with `backbone`, fitted and judged on `split`. Good for comparing backbones on one split.

    The values are no estimate of those on real defects, which may be easier or harder. They differ from split to split,
    and so does, less, the loss of one backbone against another: on magnetic tile a dense ResNet-18 had an image AUROC
    of 0.848 to 0.883 with four seeds, and lost 0.073 to 0.093 when 0.3 of its channels went.
    """
    scores, maps = validation_scores(backbone, split, settings, track=track)
    labels = np.arange(len(scores)) >= len(split.good)
    masks = torch.cat([torch.zeros(split.good[:, 0].shape, dtype=torch.bool), split.masks]).numpy()
    return ValidationAuroc(auroc(labels, scores), auroc(masks, maps))


def validation_scores(
    backbone: Backbone | OnnxBackbone, split: ValidationSplit, settings: DetectorSettings, *, track: Track = quiet
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores (G + D,) and maps (G + D, 224, 224) of `split`'s good and then its defective images."""
    detector = settings.fit(backbone, split.fit, track=track)
    images = torch.cat([split.good, split.defective])
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return score(detector, track(batches, "validation", len(batches)), len(images))
