"""From the images that a user gives to what a method reads in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.backbone import Backbone
from compress.errors import CompressError
from compress.graph import ChannelGroup
from compress.importance.activations import collect_statistics
from compress.importance.batches import LEAST, require_enough
from compress.importance.evidence import Evidence
from compress.importance.gradients import collect_taylor
from compress.importance.regions import Regions
from compress.progress import Track, quiet


def check_images(method: str, reads: str, images: Sequence[Tensor] | None, regions: Regions | None) -> None:
    """Refuse images and regions that do not go with a method, which is called `method` and has these `reads`.

    Raises:
        CompressError: the method reads images and there are none or too few, or it has no use for regions.
    """
    if regions is not None and reads != "activations":
        raise CompressError(f"regions restrict statistics of activations, and {method} reads none: leave them out")
    if reads == "weights":
        return
    if images is None:
        raise CompressError(f"method {method} reads {reads}, for which it needs images: give at least {LEAST}")
    require_enough(images, method)
    if regions is not None and len(regions) != len(images):
        raise CompressError(f"{len(regions)} regions for {len(images)} images: give one for each, None for all of it")


def gather(
    reads: str,
    backbone: Backbone,
    groups: Sequence[ChannelGroup],
    *,
    seed: int = 0,
    images: Sequence[Tensor] = (),
    regions: Regions | None = None,
    track: Track = quiet,
) -> Evidence:
    """The evidence for a method that `reads` weights, activations or gradients; see `check_images` for what it needs.

    Raises:
        CompressError: an image or region of a wrong kind, or activations that are not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    if reads == "activations":
        statistics = collect_statistics(backbone, groups, images, regions=regions, track=track)
        return Evidence(generator, activations=statistics)
    if reads == "gradients":
        return Evidence(generator, taylor=collect_taylor(backbone, groups, images, track=track))
    return Evidence(generator)
