"""What each index of the memory bank costs in detection, memory and time, on one category."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly import AnomalyError, Category, evaluate_scores
from anomaly.features import BATCH
from anomaly.images import load_batches, load_image, load_masks
from anomaly.memory_bank import INDEX_KINDS, MemoryBank
from anomaly.progress import Track, quiet
from anomaly.scoring import anomaly_maps, image_scores
from compress import Backbone, OnnxBackbone
from pipelines.console import note
from pipelines.evaluate import DetectorSettings
from reports.choices import Choice

FLAT = "Flat"  # FAISS's own exact index, for comparison
INDEXES = ("exact", FLAT, *(kind for kind in INDEX_KINDS if kind != "exact"))
TIMED = 20  # images, by default


@dataclass
class _Measured:
    bank: MemoryBank
    build_seconds: float
    times: list[float] = field(default_factory=list)
    distances: list[Tensor] = field(default_factory=list)
    agreed: int = 0


def index_report(
    backbone: Backbone | OnnxBackbone,
    category: Category,
    settings: DetectorSettings,
    indexes: Sequence[str] = INDEXES,
    *,
    timed: int = TIMED,
    track: Track = quiet,
) -> list[Choice]:
    """One bank, searched by each of `indexes`: recall, AUROC, bytes, seconds to build and milliseconds per image.

    Times are of one image at a time, the indexes in turn on each image, so that a busy moment of the machine meets
    them all. An index that cannot be made of this bank is left out with a note. The patches of the
    test images are never held all at once.

    Raises:
        AnomalyError: a name that is no index, or no index that could be made.
    """
    # Masks first: a bad one should be refused before the long work, not after it.
    masks = load_masks(category)
    detector = dataclasses.replace(settings, index="exact", latency_ms=None).fit(backbone, category.train, track=track)
    measured = _build(detector.bank, ["exact", *(name for name in indexes if name != "exact")], settings.seed, track)
    places = np.linspace(0, len(category.test) - 1, min(timed, len(category.test))).round().astype(int)
    for turn, place in enumerate(track(places, "timing", len(places))):
        patches = detector.embed(detector.extract(load_image(category.test[place].image)[None])).flatten(0, 2)
        if not turn:
            for each in measured.values():  # the first search of an index is no measure of the others
                each.bank.search(patches, 1)
        for each in measured.values():
            start = time.perf_counter()
            each.bank.search(patches, 1)
            each.times.append((time.perf_counter() - start) * 1000)
    batches = track(load_batches(category.test, BATCH), "test", -(-len(category.test) // BATCH))
    searched = 0
    for batch in batches:
        maps = detector.embed(detector.extract(batch))
        found = {name: each.bank.search(maps.flatten(0, 2), 1) for name, each in measured.items()}
        for name, (distances, rows) in found.items():
            measured[name].distances.append(distances.view(maps.shape[:3]))
            measured[name].agreed += int((rows == found["exact"][1]).sum())
        searched += len(found["exact"][1])
    labels = np.array([sample.is_defective for sample in category.test])
    return [_choice(name, measured[name], labels, masks, searched) for name in indexes if name in measured]


def _build(bank: MemoryBank, indexes: Sequence[str], seed: int, track: Track) -> dict[str, _Measured]:
    measured: dict[str, _Measured] = {}
    for name in track(indexes, "indexes", len(indexes)):
        start = time.perf_counter()
        try:
            made = MemoryBank(bank.vectors, bank.images, index=name, seed=seed)
        except AnomalyError as error:
            note(f"{name} left out: {error}")
            continue
        measured[name] = _Measured(made, time.perf_counter() - start)
    return measured


def _choice(
    name: str, measured: _Measured, labels: NDArray[np.bool_], masks: NDArray[np.bool_] | None, searched: int
) -> Choice:
    distances = torch.cat(measured.distances)
    maps = None if masks is None else anomaly_maps(distances, masks.shape[-1]).numpy()
    metrics = evaluate_scores(labels, image_scores(distances).numpy(), masks, maps)
    return Choice(
        name,
        {
            "recall": measured.agreed / searched,
            "image_auroc": metrics.image_auroc,
            "pixel_auroc": metrics.pixel_auroc,
            "bank_bytes": measured.bank.nbytes,
            "build_seconds": measured.build_seconds,
            "ms_search": float(np.median(measured.times)),
            "ms_search_p95": float(np.percentile(measured.times, 95)),
        },
    )
