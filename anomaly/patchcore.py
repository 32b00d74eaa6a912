"""PatchCore (Roth et al. 2022, arXiv 2106.08265) on any backbone that returns a list of feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from anomaly.coreset import (
    PROJECTION,
    Coreset,
    ProjectedRows,
    Rows,
    check_bank_request,
    coreset_size,
    find_sampler,
    random_directions,
    random_projection,
)
from anomaly.errors import AnomalyError
from anomaly.feature_file import FeatureFile, check_storage
from anomaly.features import gather_in_memory, gather_on_disk, request_of
from anomaly.images import Load, load_image, normalise
from anomaly.memory_bank import MemoryBank, check_index
from anomaly.memory_budget import images_within, search_bytes
from anomaly.patch_embedding import PATCHCORE, Embedding, embed_patches
from anomaly.progress import Track, quiet
from anomaly.samples import Sample
from anomaly.scoring import LARGEST, Scoring, anomaly_maps, score_images


@dataclass(frozen=True)
class Prediction:
    """Image scores (N,) and anomaly maps (N, 224, 224), both distances in feature space: larger is stranger."""

    scores: Tensor
    maps: Tensor


class PatchCore:
    """A memory bank of normal patches, and the distance of an image's patches to it.

    Args:
        backbone: any module that gives a list of maps (N, C_i, H_i, W_i) for a normalised batch, shallow first.
        mean, std: of RGB in [0, 1], what the backbone was trained with.
        coreset: share of the training patches that the bank keeps, in (0, 1].
        bank_size: number of patches instead of a share.
        seed: of the projection and of the first centre.
        sampler: how they are chosen, a key of `anomaly.coreset.SAMPLERS`.
        coverage: keep fewer once every training patch has one of the bank within this distance, on the projection.
        memory: bytes that features and sampler may take together, and later the prediction of a batch beside the bank;
            None: what they need.
        features: a folder for the training patches: a killed `fit` goes on there, and memory holds a part of them.
        features_dtype: float32 or float16, on disk.
        index: how the bank is searched: `auto`, a key of `anomaly.memory_bank.INDEX_KINDS` or a FAISS factory string.
        latency_ms: for `auto`, the wish for the search of one image.
        embedding: how feature maps become patches.
        scoring: how patch distances become scores.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        coreset: float = 0.01,
        bank_size: int | None = None,
        seed: int = 0,
        sampler: str = "greedy",
        coverage: float | None = None,
        memory: int | None = None,
        features: Path | None = None,
        features_dtype: str = "float32",
        index: str = "auto",
        latency_ms: float | None = None,
        embedding: Embedding = PATCHCORE,
        scoring: Scoring = LARGEST,
    ) -> None:
        check_bank_request(coreset, bank_size)
        find_sampler(sampler, coverage=coverage, size=bank_size)
        check_storage(features, features_dtype)
        check_index(index, latency_ms)
        self.backbone = backbone
        self.mean, self.std = tuple(mean), tuple(std)
        self.coreset, self.bank_size, self.seed = coreset, bank_size, seed
        self.sampler, self.coverage, self.memory = sampler, coverage, memory
        self.features, self.features_dtype = features, features_dtype
        self.index, self.latency_ms = index, latency_ms
        self.embedding, self.scoring = embedding, scoring
        self.covering_radius: float | None = None
        self._bank: MemoryBank | None = None

    @property
    def bank(self) -> MemoryBank:
        """The bank that `fit` made.

        Raises:
            AnomalyError: before `fit`.
        """
        if self._bank is None:
            raise AnomalyError("the detector has no memory bank yet: call fit first")
        return self._bank

    def fit(self, samples: Sequence[Sample], *, load: Load = load_image, track: Track = quiet) -> PatchCore:
        """Fill the bank from good images.

        Images stream through in batches of 16. Without a folder for features, memory holds those of all images and
        their projection: images x H x W x (D + 128) x 4 bytes, 1.2 GB for 761 images and ResNet-18's 28 x 28 x 384.
        `covering_radius` is then the distance, on the projection, within which all patches have one of the bank.

        Raises:
            AnomalyError: no images, a damaged one, a coreset that keeps no patch, too little memory, or a full disk.
        """
        rows = self._gather(samples, load, track)
        chosen = self._sample(rows, self.bank_size, track)
        self.covering_radius = chosen.radius
        images = chosen.indices // (len(rows) // len(samples))
        return self.use_bank(self._index(_taken(rows, chosen.indices), images))

    def use_bank(self, bank: MemoryBank) -> PatchCore:
        """Search in `bank` from now on."""
        self._bank = bank
        return self

    def training_patches(self, samples: Sequence[Sample], *, track: Track = quiet) -> Tensor:
        """Patch features (N, H, W, D) of images, in memory.

        Raises:
            AnomalyError: no images, a damaged one, or too little memory.
        """
        shape: list[int] = []

        def embed(batch: Tensor) -> Tensor:
            patches = self.embed(self.extract(batch))
            shape[:] = patches.shape[1:]
            return patches.flatten(0, 2)

        rows = gather_in_memory(embed, samples, memory=self.memory, track=track)
        return rows.view(len(samples), *shape)

    def choose_bank(self, patches: Tensor, *, size: int | None = None, track: Track = quiet) -> MemoryBank:
        """The coreset of patches (M, D) as a bank; of `size` vectors, or as many as the detector's settings say.

        Raises:
            AnomalyError: a coreset that keeps no patch, or more than there are.
        """
        return self._index(_taken(patches, self._sample(patches, size or self.bank_size, track).indices))

    def _index(self, patches: Tensor, images: Tensor | None = None) -> MemoryBank:
        return MemoryBank(patches, images, index=self.index, latency_ms=self.latency_ms, seed=self.seed)

    def _sample(self, rows: Tensor | FeatureFile, size: int | None, track: Track) -> Coreset:
        sampler = find_sampler(self.sampler)
        if not sampler.counts:
            size = len(rows)
        elif size is None:
            size = coreset_size(len(rows), self.coreset)
        if size > len(rows):
            raise AnomalyError(f"bank size {size} is more than the {len(rows)} training patches: lower it")
        held = rows.element_size() * rows.nelement() if isinstance(rows, Tensor) else 0
        return sampler.sample(
            self._project(rows),
            size,
            coverage=self.coverage,
            seed=self.seed,
            memory=None if self.memory is None else self.memory - held,
            track=track,
        )

    def _gather(self, samples: Sequence[Sample], load: Load, track: Track) -> Tensor | FeatureFile:
        def embed(batch: Tensor) -> Tensor:
            return self.embed(self.extract(batch)).flatten(0, 2)

        if self.features is None:
            return gather_in_memory(embed, samples, memory=self.memory, load=load, track=track)
        request = request_of(self.backbone, self.mean, self.std, self.embedding, samples)
        file = FeatureFile(self.features, request, dtype=self.features_dtype)
        return gather_on_disk(embed, samples, file, load=load, track=track)

    def _project(self, rows: Tensor | FeatureFile) -> Rows:
        if isinstance(rows, Tensor):
            return random_projection(rows, seed=self.seed)
        if rows.shape[1] <= PROJECTION:
            return rows
        return ProjectedRows(rows, random_directions(rows.shape[1], seed=self.seed))

    def predict(self, batch: Tensor) -> Prediction:
        """Scores and maps of a uint8 RGB batch (N, 3, 224, 224)."""
        patches = self.embed(self.extract(batch))
        return self.score(self.search(patches), patches, batch.shape[-1])

    def batch_size(self, image: Tensor) -> int:
        """How many images to predict at once within `memory`, 16 at the most, seen from one uint8 image (3, H, W)."""
        maps = self.extract(image[None])
        return images_within(self.memory, maps, self.embed(maps))

    @torch.inference_mode()
    def extract(self, batch: Tensor) -> list[Tensor]:
        """Stage 1, features: uint8 RGB (N, 3, H, W), wherever it lies, to feature maps on the backbone's device."""
        if (weight := next(self.backbone.parameters(), None)) is not None:
            batch = batch.to(weight.device)
        training = [module for module in self.backbone.modules() if module.training] if self.backbone.training else []
        if training:  # batch norms must not learn from test images; the caller's modes are put back
            self.backbone.eval()
        try:
            maps: list[Tensor] = self.backbone(normalise(batch, self.mean, self.std))
        finally:
            for module in training:
                module.training = True
        return maps

    @torch.inference_mode()
    def embed(self, maps: Sequence[Tensor]) -> Tensor:
        """Stage 2, embedding: feature maps to patch features (N, H, W, D)."""
        return embed_patches(maps, self.embedding)

    @torch.no_grad()
    def search(self, patches: Tensor) -> Tensor:
        """Stage 3, search: patch features (N, H, W, D) to distances (N, H, W)."""
        distances, _ = self.bank.search(
            patches.flatten(0, 2), self.scoring.map_neighbours, block_bytes=search_bytes(self.memory)
        )
        return distances.mean(dim=1).view(patches.shape[:3])

    @torch.no_grad()
    def score(self, distances: Tensor, patches: Tensor, size: int) -> Prediction:
        """Stage 4, scoring: distances (N, H, W) of patches (N, H, W, D) to scores, and maps of `size` pixels a side."""
        return Prediction(
            score_images(distances, patches, self.bank, self.scoring).cpu(), anomaly_maps(distances, size)
        )


def _taken(rows: Tensor | FeatureFile, indices: Tensor) -> Tensor:
    return rows[indices] if isinstance(rows, Tensor) else rows.take(indices)
