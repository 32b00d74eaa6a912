"""Fits a detector on the good images of a category: the memory bank, and the threshold of the image score."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch

from anomaly import Category, fingerprint
from anomaly.progress import Track, quiet
from anomaly.threshold import FOLDS, check_quantile, held_out_scores, threshold_of
from compress import Backbone
from compress.artifact import digest_of, versions
from compress.export import OnnxBackbone
from pipelines.console import note
from pipelines.detector_file import Description, FittedDetector
from pipelines.evaluate import DetectorSettings
from pipelines.score_difference import score_difference
from prunecore_runtime.images import read_image, resized

KEPT_IMAGES = 8  # training images that go along, for an export to be checked on


@dataclass(frozen=True)
class FitSettings:
    """How a detector is fitted.

    Attributes:
        quantile: share of good images meant to score below the threshold, in (0, 1).
    """

    coreset: float = 0.01
    bank_size: int | None = None
    seed: int = 0
    quantile: float = 0.99


def fit_detector(
    backbone: Backbone | OnnxBackbone,
    category: Category,
    settings: FitSettings,
    *,
    command: str,
    original: Backbone | None = None,
    track: Track = quiet,
) -> FittedDetector:
    """A detector of `category`, made from its training images alone; its test images are not opened.

    Five banks of four fifths of the images set the threshold (see `anomaly.threshold`), the one that stays is made of
    all. The features of all images are held meanwhile: see `PatchCore.training_patches`.

    Args:
        original: the float network that an int8 `backbone` was made from; the description then tells how their scores
            differ (see `pipelines.score_difference`).

    Raises:
        CompressError: `backbone` is not int8 or was not made from `original`, or there are fewer than 24 images to
            compare them on.
        AnomalyError: fewer than 2 images, a damaged one, or settings that make no bank.
    """
    check_quantile(settings.quantile)
    how = DetectorSettings(
        coreset=settings.coreset,
        bank_size=settings.bank_size,
        seed=settings.seed,
        index="exact",  # the file and its exports need the vectors themselves
    )
    difference = None
    if original is not None:
        difference = score_difference(original, backbone, category, how, settings.quantile, track=track)
    detector = how.detector(backbone)
    patches = detector.training_patches(category.train, track=track)
    bank = detector.choose_bank(patches.flatten(0, 2), track=track)
    threshold = threshold_of(held_out_scores(detector, patches, size=len(bank), track=track), settings.quantile)
    if threshold.attained < threshold.quantile:
        note(
            f"{threshold.images} good images vouch for a quantile of {threshold.attained:.3g} at most, not of "
            f"{threshold.quantile:g}: the threshold is their largest held-out score"
        )
    vectors = bank.vectors
    kept = np.random.default_rng(settings.seed).permutation(len(category.train))[:KEPT_IMAGES]
    pixels = [np.asarray(resized(read_image(category.train[index].image))) for index in sorted(kept)]
    description = Description(
        dataset=category.dataset,
        category=category.name,
        images=len(category.train),
        settings={
            "coreset": None if settings.bank_size else settings.coreset,
            "bank_size": len(bank),
            "seed": settings.seed,
            "folds": min(FOLDS, len(category.train)),
        },
        threshold=threshold,
        fingerprints={
            "data": fingerprint(category),
            "backbone": _fingerprint(backbone),
            "bank": hashlib.sha256(vectors.numpy().tobytes()).hexdigest(),
        },
        versions={**versions(), "onnxruntime": version("onnxruntime"), "faiss-cpu": version("faiss-cpu")},
        command=command,
        int8_difference=difference,
    )
    return FittedDetector(backbone, vectors, torch.from_numpy(np.stack(pixels)), description)


def _fingerprint(backbone: Backbone | OnnxBackbone) -> str:
    return hashlib.sha256(backbone.content).hexdigest() if isinstance(backbone, OnnxBackbone) else digest_of(backbone)
