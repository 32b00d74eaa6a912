"""How long each stage of a prediction takes, for one image at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from anomaly.images import load_image
from anomaly.patchcore import PatchCore

T = TypeVar("T")
_SLOW = 95  # percentile


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds for one image. `total` is that of whole predictions from the decoded image on."""

    decode: float | None
    features: float
    embedding: float
    search: float
    scoring: float
    total: float


@dataclass(frozen=True)
class Timing:
    """Medians, and the times that one image in twenty exceeds."""

    median: StageTimes
    p95: StageTimes


def time_stages(detector: PatchCore, image: Tensor | Path, *, warm_up: int = 5, repetitions: int = 30) -> Timing:
    """Time a fitted detector, on as many threads as torch has now.

    Args:
        image: a file, which is decoded anew each time, or uint8 (3, H, W), whose `decode` is None.
    """
    size = load_image(image).shape[-1] if isinstance(image, Path) else image.shape[-1]
    runs: list[list[float]] = []
    for _ in range(warm_up + repetitions):
        pixels, decode = _timed(lambda: load_image(image) if isinstance(image, Path) else image)
        batch = pixels[None]
        maps, features = _timed(lambda batch=batch: detector.extract(batch))  # type: ignore[misc]
        patches, embedding = _timed(lambda maps=maps: detector.embed(maps))  # type: ignore[misc]
        distances, search = _timed(lambda patches=patches: detector.search(patches))  # type: ignore[misc]
        _, scoring = _timed(lambda d=distances, p=patches: detector.score(d, p, size))  # type: ignore[misc]
        runs.append([decode, features, embedding, search, scoring, features + embedding + search + scoring])
    times = np.array(runs[warm_up:])
    return Timing(
        *(
            StageTimes(float(row[0]) if isinstance(image, Path) else None, *map(float, row[1:]))
            for row in (np.median(times, axis=0), np.percentile(times, _SLOW, axis=0))
        )
    )


def _timed(stage: Callable[[], T]) -> tuple[T, float]:
    _finish()
    start = time.perf_counter()
    result = stage()
    _finish()
    return result, (time.perf_counter() - start) * 1000


def _finish() -> None:
    """A GPU answers before it is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
