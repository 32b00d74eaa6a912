"""The memory bank: normal patches, and the distance of a new patch to the nearest of them."""

from __future__ import annotations

import faiss
import numpy as np
import torch
from torch import Tensor

from anomaly.errors import AnomalyError


class MemoryBank:
    """Patch features in an exact FAISS index (L2).

    Args:
        features: (K, D) float32, K at least 1.
    """

    def __init__(self, features: Tensor) -> None:
        if features.ndim != 2 or not len(features):
            raise AnomalyError(
                f"a memory bank needs patches as (K, D), not {tuple(features.shape)}: add training images"
            )
        self._index = faiss.IndexFlatL2(features.shape[1])
        self._index.add(np.ascontiguousarray(features.cpu().numpy(), dtype=np.float32))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def vectors(self) -> Tensor:
        """A copy of the patches (K, D), float32."""
        return torch.from_numpy(self._index.reconstruct_n(0, len(self)))

    def nearest(self, patches: Tensor) -> Tensor:
        """Distances (N,) of patches (N, D) to their nearest neighbours in the bank, at least 0."""
        squared, _ = self._index.search(np.ascontiguousarray(patches.cpu().numpy(), dtype=np.float32), 1)
        # FAISS computes |x|^2 - 2 x.y + |y|^2, which rounding can push below 0.
        return torch.from_numpy(np.sqrt(np.maximum(squared[:, 0], 0)))
