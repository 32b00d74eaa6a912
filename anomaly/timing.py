"""How long each stage of a prediction takes, for one image at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from torch import Tensor

from anomaly.patchcore import PatchCore
from anomaly.scoring import anomaly_maps, image_scores

T = TypeVar("T")


@dataclass(frozen=True)
class StageTimes:
    """Medians in milliseconds for one image; `total` is the median of whole predictions."""

    features: float
    embedding: float
    search: float
    scoring: float
    total: float


def time_stages(detector: PatchCore, image: Tensor, *, warm_up: int = 5, repetitions: int = 30) -> StageTimes:
    """Time a fitted detector on one uint8 image (3, H, W), on as many threads as torch has now."""
    batch = image[None]
    size = batch.shape[-1]
    runs: list[tuple[float, ...]] = []
    for _ in range(warm_up + repetitions):
        maps, features = _timed(lambda: detector.extract(batch))
        patches, embedding = _timed(lambda maps=maps: detector.embed(maps))  # type: ignore[misc]
        distances, search = _timed(lambda patches=patches: detector.search(patches))  # type: ignore[misc]
        _, scoring = _timed(lambda d=distances: (image_scores(d), anomaly_maps(d, size)))  # type: ignore[misc]
        runs.append((features, embedding, search, scoring, features + embedding + search + scoring))
    return StageTimes(*(median(column) for column in zip(*runs[warm_up:], strict=True)))


def _timed(stage: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = stage()
    return result, (time.perf_counter() - start) * 1000
