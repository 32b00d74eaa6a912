"""PatchCore (Roth et al. 2022, arXiv 2106.08265) on any backbone that returns a list of feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anomaly.coreset import check_bank_request, coreset_size, greedy_coreset, random_projection
from anomaly.errors import AnomalyError
from anomaly.images import load_batches, normalise
from anomaly.memory_bank import MemoryBank
from anomaly.patch_embedding import embed_patches
from anomaly.progress import Track, quiet
from anomaly.samples import Sample
from anomaly.scoring import anomaly_maps, image_scores

BATCH = 16


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
    ) -> None:
        check_bank_request(coreset, bank_size)
        self.backbone = backbone
        self.mean, self.std = tuple(mean), tuple(std)
        self.coreset, self.bank_size, self.seed = coreset, bank_size, seed
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

    def fit(self, samples: Sequence[Sample], *, track: Track = quiet) -> PatchCore:
        """Fill the bank from good images.

        Raises:
            AnomalyError: no images, a damaged one, or a coreset that keeps no patch.
        """
        return self.use_bank(self.choose_bank(self.training_patches(samples, track=track).flatten(0, 2), track=track))

    def use_bank(self, bank: MemoryBank) -> PatchCore:
        """Search in `bank` from now on."""
        self._bank = bank
        return self

    def training_patches(self, samples: Sequence[Sample], *, track: Track = quiet) -> Tensor:
        """Patch features (N, H, W, D) of images.

        Images stream through in batches of 16; memory is bounded by the features of all of them and the bank's
        projection: images x H x W x (D + 128) x 4 bytes, 1.2 GB for 761 images and ResNet-18's 28 x 28 x 384.

        Raises:
            AnomalyError: no images, or a damaged one.
        """
        features: Tensor | None = None
        filled = 0
        for batch in track(load_batches(samples, BATCH), "training features", -(-len(samples) // BATCH)):
            patches = self.embed(self.extract(batch))
            if features is None:  # one block from the start: joining pieces at the end would take twice the memory
                features = torch.empty(len(samples), *patches.shape[1:])
            features[filled : filled + len(patches)] = patches
            filled += len(patches)
        if features is None:
            raise AnomalyError("no training images: PatchCore learns from good images")
        return features

    def choose_bank(self, patches: Tensor, *, size: int | None = None, track: Track = quiet) -> MemoryBank:
        """The coreset of patches (M, D) as a bank; of `size` vectors, or as many as the detector's settings say.

        Raises:
            AnomalyError: a coreset that keeps no patch, or more than there are.
        """
        size = size or self.bank_size or coreset_size(len(patches), self.coreset)
        if size > len(patches):
            raise AnomalyError(f"bank size {size} is more than the {len(patches)} training patches: lower it")
        projected = random_projection(patches, seed=self.seed)
        return MemoryBank(patches[greedy_coreset(projected, size, seed=self.seed, track=track)])

    def predict(self, batch: Tensor) -> Prediction:
        """Scores and maps of a uint8 RGB batch (N, 3, 224, 224)."""
        distances = self.search(self.embed(self.extract(batch)))
        return Prediction(image_scores(distances), anomaly_maps(distances, batch.shape[-1]))

    @torch.inference_mode()
    def extract(self, batch: Tensor) -> list[Tensor]:
        """Stage 1, features: uint8 RGB (N, 3, H, W) to feature maps."""
        training = self.backbone.training
        if training:  # batch norms must not learn from test images; the caller's mode is put back
            self.backbone.eval()
        maps: list[Tensor] = self.backbone(normalise(batch, self.mean, self.std))
        if training:
            self.backbone.train()
        return maps

    @torch.inference_mode()
    def embed(self, maps: Sequence[Tensor]) -> Tensor:
        """Stage 2, embedding: feature maps to patch features (N, H, W, D)."""
        return embed_patches(maps)

    def search(self, patches: Tensor) -> Tensor:
        """Stage 3, search: patch features (N, H, W, D) to distances (N, H, W)."""
        return self.bank.nearest(patches.flatten(0, 2)).view(patches.shape[:3])
