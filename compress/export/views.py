"""The user's images as a detector shows them to a backbone: centre views, normalised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from compress.augment import centre_view
from compress.backbone import BackboneSpec
from compress.image_kinds import require_image


def normalised_views(images: Sequence[Any], places: Iterable[int], spec: BackboneSpec) -> Tensor:
    """The centre views of `images[place]` for each place, float32 (N, 3, S, S), S = spec.size, normalised.

    Raises:
        CompressError: an image that is not uint8 RGB (3, H, W).
    """
    views = [centre_view(require_image(images[place], place), spec.size) for place in places]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return torch.stack(views).float().div_(255).sub_(mean).div_(std)


def patterned_views(spec: BackboneSpec, count: int = 2) -> Tensor:
    """Smooth random images for where there are no others, float32 (count, 3, S, S), in a normalised image's range."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (spec.size, spec.size), mode="bicubic").clamp_(0, 1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return smooth.sub_(mean).div_(std)
