"""What a user may give as images: a sequence of uint8 RGB tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from compress.errors import CompressError


def require_sequence(images: Any) -> None:
    """Raises CompressError for images that cannot be counted and asked for by place."""
    if isinstance(images, DataLoader):
        raise CompressError("the images come in a DataLoader, and batches are made here: pass loader.dataset")
    if not hasattr(images, "__getitem__") or not hasattr(images, "__len__"):
        raise CompressError(f"the images come in a {type(images).__name__}: pass a list, or a map-style dataset")


def require_image(image: Any, place: int) -> Tensor:
    """The image, which is the one at `place`. Raises CompressError unless it is uint8 RGB (3, H, W)."""
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        found = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise CompressError(
            f"image {place} is {found}: give uint8 RGB tensors (3, H, W), as torchvision's pil_to_tensor makes them"
        )
    return image
