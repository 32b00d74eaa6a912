"""One backbone on one category: fit PatchCore on the good images, judge it on the test split, tell the cost."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anomaly import Category, PatchCore, fingerprint
from anomaly.coreset import check_bank_request, find_sampler
from anomaly.decoded_images import DecodedImages
from anomaly.feature_file import check_storage
from anomaly.features import BATCH
from anomaly.images import Load, load_batches, load_image, load_masks
from anomaly.memory_bank import check_index
from anomaly.metrics import PixelCurve, evaluate_with_curve
from anomaly.patch_embedding import PATCHCORE, Embedding
from anomaly.progress import Track, quiet
from anomaly.samples import Sample
from anomaly.scoring import LARGEST, Scoring
from anomaly.timing import StageTimes, Timing, time_stages
from compress import Backbone, OnnxBackbone
from compress.artifact import versions
from compress.backbone import UNPRUNED
from pipelines import machine
from pipelines.console import note
from pipelines.evidence import Evidence
from pipelines.models import precision_of, runtime_of
from pipelines.profile import sizes
from pipelines.results import Row
from reports import Examples, Scores, cases, small_maps

EXAMPLE_KINDS = 4  # kinds of defect shown per category, besides one good image


@dataclass(frozen=True)
class DetectorSettings:
    """How PatchCore is fitted, and whether its stages are timed."""

    coreset: float = 0.01
    bank_size: int | None = None
    seed: int = 0
    timing: bool = False
    sampler: str = "greedy"
    coverage: float | None = None
    memory: int | None = None  # bytes
    features: Path | None = None
    features_dtype: str = "float32"
    index: str = "auto"
    latency_ms: float | None = None
    embedding: Embedding = PATCHCORE  # its draw of channels follows `seed`
    scoring: Scoring = LARGEST

    def __post_init__(self) -> None:  # here too, and not after an hour in `PatchCore`
        check_bank_request(self.coreset, self.bank_size)
        find_sampler(self.sampler, coverage=self.coverage, size=self.bank_size)
        check_storage(self.features, self.features_dtype)
        check_index(self.index, self.latency_ms)

    def key(self) -> dict[str, Any]:
        """What results depend on: not the folder of the features. Options that came later count once they are used."""
        first = ("coreset", "bank_size", "seed", "timing")
        fields = [field for field in dataclasses.fields(self) if field.name != "features"]
        return {
            field.name: _plain(getattr(self, field.name))
            for field in fields
            if field.name in first or getattr(self, field.name) != field.default
        }

    def fit(
        self,
        backbone: Backbone | OnnxBackbone,
        samples: Sequence[Sample],
        *,
        load: Load = load_image,
        track: Track = quiet,
    ) -> PatchCore:
        """PatchCore with `backbone`, fitted on good images."""
        return self.detector(backbone).fit(samples, load=load, track=track)

    def detector(self, backbone: Backbone | OnnxBackbone) -> PatchCore:
        """PatchCore with `backbone`, not fitted yet."""
        return PatchCore(
            backbone,
            mean=backbone.mean,
            std=backbone.std,
            coreset=self.coreset,
            bank_size=self.bank_size,
            seed=self.seed,
            sampler=self.sampler,
            coverage=self.coverage,
            memory=self.memory,
            features=self.features,
            features_dtype=self.features_dtype,
            index=self.index,
            latency_ms=self.latency_ms,
            embedding=dataclasses.replace(self.embedding, seed=self.seed),
            scoring=self.scoring,
        )


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def score(
    detector: PatchCore, batches: Iterable[Tensor], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image scores (N,) and anomaly maps (N, H, W) of `count` images in uint8 batches, in their order."""
    scores, maps = np.empty(count, dtype=np.float32), np.empty(0, dtype=np.float32)
    done = 0
    for batch in batches:
        prediction = detector.predict(batch)
        if not done:  # one block from the start: joining pieces at the end would hold all maps twice
            maps = np.empty((count, *prediction.maps.shape[1:]), dtype=np.float32)
        scores[done : done + len(batch)], maps[done : done + len(batch)] = prediction.scores, prediction.maps
        done += len(batch)
    return scores, maps


def evaluate(
    backbone: Backbone | OnnxBackbone,
    category: Category,
    settings: DetectorSettings,
    *,
    command: str,
    data_fingerprint: str | None = None,
    decoded: DecodedImages | None = None,
    track: Track = quiet,
) -> tuple[Row, Evidence]:
    """The row of results of `backbone` on `category`, pictures to look at, and the scores of every test image.

    `data_fingerprint` is the category's, if it is at hand: making it reads every file.
    The anomaly maps of the whole test split are held, once, until the metrics are known: with the masks 5 bytes for
    each of the images x 224 x 224 pixels, 150 MB for 583 images. `settings.memory` bounds the rest of the prediction.
    `decoded` keeps the images for other backbones; what it holds is no part of the row's memory.

    Raises:
        AnomalyError: no test images, a damaged one, or settings that make no detector.
    """
    category.require_test()
    if decoded:
        decoded.fill(sample.image for sample in (*category.train, *category.test))
    load, held = (decoded, decoded.bytes) if decoded else (load_image, 0)
    machine.restart_peak()
    # Masks first: a bad one should be refused before the long work, not after it.
    masks = load_masks(category)
    detector = settings.fit(backbone, category.train, load=load, track=track)
    if detector.covering_radius and not math.isnan(detector.covering_radius):
        note(f"bank: {len(detector.bank)} patches, every training patch within {detector.covering_radius:.4g} of one")
    first = category.test[0].image
    batch = detector.batch_size(load_image(first)) if settings.memory else BATCH
    batches = track(load_batches(category.test, batch, load), "test", -(-len(category.test) // batch))
    scores, maps = score(detector, batches, len(category.test))
    labels = np.array([sample.is_defective for sample in category.test])
    metrics, curve = evaluate_with_curve(labels, scores, masks, maps)
    if masks is not None and not masks.any():
        note(f"{category.dataset}/{category.name}: no mask marks a pixel of the centre crop; pixel metrics are n/a")
    peak = machine.peak_rss() - held
    if settings.timing:
        machine.restart_peak()
    times = time_stages(detector, first) if settings.timing else None
    pruning = backbone.spec.pruning or UNPRUNED
    row = Row(
        arch=backbone.spec.arch,
        method=pruning.method,
        ratio=pruning.ratio,
        scope=pruning.scope,
        recover=pruning.recover,
        precision=precision_of(backbone),
        dataset=category.dataset,
        category=category.name,
        seed=settings.seed,
        **sizes(backbone),
        bank_size=len(detector.bank),
        **dataclasses.asdict(metrics),
        **_milliseconds(times),
        peak_rss_bytes=peak,
        command=command,
        versions=versions(),
        machine=machine.describe(),
        threads=machine.threads(),
        runtime=runtime_of(backbone),
        data_fingerprint=data_fingerprint or fingerprint(category),
        weights_source=backbone.spec.weights.source,
        weights_fingerprint=backbone.spec.weights.sha256,
        sparse_steps=pruning.sparse_steps,
        recover_steps=pruning.recover_steps,
        dimension=detector.bank.dimension,
        index=detector.bank.index,
        predict_rss_bytes=machine.peak_rss() - held if times else None,
    )
    names = _names(category.test)
    evidence = Evidence(
        _examples(category, names, labels, masks, scores, maps), _scores(names, labels, scores, maps, curve)
    )
    return row, evidence


def _milliseconds(times: Timing | None) -> dict[str, Any]:
    """The row's `ms_` fields: medians under the stages' names, and with `_p95` behind."""
    found: dict[str, Any] = {}
    for stage in dataclasses.fields(StageTimes):
        found[f"ms_{stage.name}"] = getattr(times.median, stage.name) if times else None
        found[f"ms_{stage.name}_p95"] = getattr(times.p95, stage.name) if times else None
    return found


def _names(samples: Sequence[Sample]) -> list[str]:
    """`crack/003.png`, and with a number behind where folders below the kind hold files of one name."""
    found: Counter[str] = Counter()
    names = []
    for sample in samples:
        name = f"{sample.kind}/{sample.image.name}"
        found[name] += 1
        names.append(name if found[name] == 1 else f"{name} ({found[name]})")
    return names


def _scores(
    names: list[str],
    labels: NDArray[np.bool_],
    scores: NDArray[np.float32],
    maps: NDArray[np.float32],
    curve: PixelCurve | None,
) -> Scores:
    small, low, high = small_maps(maps)
    pixels = None if curve is None else np.stack(curve).astype(np.float32)
    return Scores(names, labels, scores, small, low, high, pixels)


def _examples(
    category: Category,
    names: list[str],
    labels: NDArray[np.bool_],
    masks: NDArray[np.bool_] | None,
    scores: NDArray[np.float32],
    maps: NDArray[np.float32],
) -> Examples:
    # Of each kind one, and those that tell most about this detector.
    chosen = list(dict.fromkeys([*_of_each_kind(category.test), *cases(labels, scores).values()]))
    samples = [category.test[index] for index in chosen]
    # Each backbone measures distances on its own scale: from a typical pixel to the strangest ones.
    low, high = np.quantile(maps[:, ::4, ::4], [0.5, 0.998])
    return Examples(
        names=[names[index] for index in chosen],
        kinds=[sample.kind for sample in samples],
        images=np.stack([load_image(sample.image).permute(1, 2, 0).numpy() for sample in samples]),
        masks=None if masks is None else masks[chosen],
        maps=maps[chosen],
        scores=scores[chosen],
        low=float(low),
        high=float(high),
    )


def _of_each_kind(samples: tuple[Sample, ...]) -> list[int]:
    """The first good image and the first of up to four kinds of defect: never chosen by how they scored."""
    first: dict[str, int] = {}
    for index, sample in enumerate(samples):
        first.setdefault(sample.kind, index)
    defects = [index for index in first.values() if samples[index].is_defective]
    spread = np.linspace(0, len(defects) - 1, min(len(defects), EXAMPLE_KINDS)).round().astype(int)
    good = [index for index in first.values() if not samples[index].is_defective]
    return [*(defects[place] for place in spread), *good]
