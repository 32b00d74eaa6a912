"""The user's images as the detector would see them, in batches for a pass over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from compress.augment import centre_view
from compress.backbone import Backbone
from compress.errors import CompressError
from compress.image_kinds import require_image, require_sequence

LEAST = 8
"""Images below which statistics say more about the images than about the channels."""


def require_enough(images: Sequence[Tensor], method: str) -> None:
    """Raises CompressError for what is no sequence, or fewer than `LEAST` images."""
    require_sequence(images)
    if len(images) < LEAST:
        raise CompressError(f"{len(images)} images are too few for {method}: at least {LEAST} are needed, add some")


def batches(images: Sequence[Tensor], backbone: Backbone, size: int) -> Iterator[Tensor]:
    """All images, prepared in batches of up to `size`.

    Raises:
        CompressError: an image of another kind.
    """
    return (prepare(own, backbone) for own in cut(images, size))


def cut(images: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Lists of up to `size` images, as they are.

    Raises:
        CompressError: an image of another kind.
    """
    for start in range(0, len(images), size):
        yield [require_image(images[place], place) for place in range(start, min(start + size, len(images)))]


def prepare(images: Sequence[Tensor], backbone: Backbone) -> Tensor:
    """A float32 batch (N, 3, 224, 224) on the backbone's device, normalised for it, channels last.

    Args:
        images: uint8 RGB (3, H, W) of any sizes; each is squashed to 256 x 256 and its centre cut out.
    """
    device = next(backbone.parameters()).device
    mean, std = (255 * torch.tensor(own, device=device).view(1, 3, 1, 1) for own in (backbone.mean, backbone.std))
    views = torch.stack([centre_view(image) for image in images]).to(device)
    return views.to(memory_format=torch.channels_last).float().sub_(mean).div_(std)


def count(images: Sequence[Tensor], size: int) -> int:
    """Number of batches."""
    return -(-len(images) // size)
