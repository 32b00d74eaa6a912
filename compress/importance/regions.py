"""Where the objects are in an image, as masks for its feature maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.errors import CompressError

Regions = Sequence[Tensor | None]
"""One for each image: a bool mask (H, W) of the image's size, boxes (K, 4) of numbers (left, top, right, bottom) in
pixels of the image, or None for all of it."""


def region_batches(regions: Regions | None, images: Sequence[Tensor], size: int) -> Iterator[Tensor | None]:
    """Masks (up to `size`, 1, 224, 224), cut as the images are, each value the share of the pixel in the region.

    Endless Nones where there are no regions.

    Raises:
        CompressError: regions that do not fit their images.
    """
    if regions is None:
        return repeat(None, -(-len(images) // size))
    return _batches(regions, images, size)


def _batches(regions: Regions, images: Sequence[Tensor], size: int) -> Iterator[Tensor]:
    for start in range(0, len(images), size):
        places = range(start, min(start + size, len(images)))
        yield torch.stack([_view(_mask(regions[place], images[place], place)) for place in places])


def _mask(region: Tensor | None, image: Tensor, place: int) -> Tensor:
    """As float (H, W)."""
    height, width = image.shape[1:]
    if region is None:
        return torch.ones(height, width)
    if not isinstance(region, Tensor):
        raise CompressError(
            f"region {place} is a {type(region).__name__}: give a tensor, a bool mask (H, W) or boxes (K, 4)"
        )
    if region.dtype == torch.bool and region.shape == (height, width):
        return region.float()
    if region.dtype == torch.bool or region.ndim != 2 or region.shape[1] != 4:
        raise CompressError(
            f"region {place} is {region.dtype} {tuple(region.shape)}, its image {height} x {width}: "
            "give a bool mask of that size, or boxes (K, 4)"
        )
    mask = torch.zeros(height, width)
    for left, top, right, bottom in region.round().long().tolist():
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise CompressError(
                f"a box of region {place} is {left, top, right, bottom}, its image {width} x {height}: "
                "boxes are (left, top, right, bottom) in pixels"
            )
        mask[top:bottom, left:right] = 1
    return mask


def _view(mask: Tensor) -> Tensor:
    """(1, 224, 224), as `compress.augment.centre_view` cuts the image."""
    return F.interpolate(mask[None, None], (256, 256), mode="area")[0, :, 16:240, 16:240]
