"""The patch features of a training set, gathered batch by batch in memory or on disk."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly.errors import AnomalyError
from anomaly.feature_file import FeatureFile
from anomaly.images import Load, load_batches, load_image
from anomaly.patch_embedding import Embedding
from anomaly.progress import Track, quiet
from anomaly.samples import Sample

BATCH = 16
_SAME = 0.01  # relative difference of features that float16, threads or another processor may make

Embed = Callable[[Tensor], Tensor]
"""Patch features (P, D) of a uint8 RGB batch (N, 3, H, W), image after image."""


def gather_in_memory(
    embed: Embed,
    samples: Sequence[Sample],
    *,
    memory: int | None = None,
    load: Load = load_image,
    track: Track = quiet,
) -> Tensor:
    """Features (N, D) of all images.

    Raises:
        AnomalyError: no images, a damaged one, or features of more than `memory` bytes.
    """
    _require_images(samples)
    features = torch.empty(0)
    filled = 0
    for batch in track(load_batches(samples, BATCH, load), "training features", -(-len(samples) // BATCH)):
        patches = embed(batch)
        if not filled:  # one block from the start: joining pieces at the end would take twice the memory
            rows = len(samples) * (len(patches) // len(batch))
            needed = 4 * rows * patches.shape[1]
            if memory is not None and needed > memory:
                raise AnomalyError(
                    f"the features of {rows} patches take {needed / 2**20:,.1f} MiB, and the memory is "
                    f"{memory / 2**20:,.1f} MiB: name a folder to keep them in (--features), or raise it"
                )
            features = torch.empty(rows, patches.shape[1])
        features[filled : filled + len(patches)] = patches
        filled += len(patches)
    return features


def gather_on_disk(
    embed: Embed, samples: Sequence[Sample], file: FeatureFile, *, load: Load = load_image, track: Track = quiet
) -> FeatureFile:
    """Features (N, D) of all images in `file`, a block for each batch; batches that it has are not computed again.

    Raises:
        AnomalyError: no images, a damaged one, a full disk, or a file with the features of something else.
    """
    _require_images(samples)
    batches = -(-len(samples) // BATCH)
    done = file.blocks
    if done:
        again = embed(next(iter(load_batches(samples[:BATCH], BATCH, load)))).cpu()
        kept = file.block(0)
        if again.shape != kept.shape or (again - kept).norm() > _SAME * kept.norm():
            raise AnomalyError(f"{file} holds the features of another embedding: delete it or name another folder")
    for batch in track(load_batches(samples[done * BATCH :], BATCH, load), "training features", batches - done):
        file.append(embed(batch))
    return file


def request_of(
    backbone: nn.Module, mean: Sequence[float], std: Sequence[float], embedding: Embedding, samples: Sequence[Sample]
) -> Any:
    """What the features on disk depend on: weights, normalisation, embedding and image files, as JSON values."""
    weights = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        weights.update(f"{name} {tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().double().numpy().tobytes())
    images = hashlib.sha256()
    for sample in samples:
        images.update(f"{_identity(sample.image)}\n".encode(errors="surrogateescape"))
    how = dataclasses.asdict(embedding if embedding.width else dataclasses.replace(embedding, seed=0))
    return {
        "weights": weights.hexdigest(),
        "images": images.hexdigest(),
        "mean": list(mean),
        "std": list(std),
        "embedding": how,
    }


def _identity(image: Path) -> str:
    try:
        found = image.stat()
    except OSError as error:
        raise AnomalyError(f"cannot read {image}: {error.strerror or error}") from error
    return f"{image.absolute()} {found.st_size} {found.st_mtime_ns}"


def _require_images(samples: Sequence[Sample]) -> None:
    if not samples:
        raise AnomalyError("no training images: PatchCore learns from good images")
