"""Importance of every filter by its gradient, over images without labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from compress.backbone import Backbone
from compress.graph import ChannelGroup
from compress.importance.batches import batches, count, require_enough
from compress.progress import Track, quiet

BATCH = 8


def collect_taylor(
    backbone: Backbone,
    groups: Sequence[ChannelGroup],
    images: Sequence[Tensor],
    *,
    batch: int = BATCH,
    track: Track = quiet,
) -> dict[str, Tensor]:
    """Per filter layer, (sum over the filter of w * g)^2 (Molchanov et al. 2019, eq. 7), float64 (outputs,).

    It is averaged over batches, as in the paper, so that it depends on how the images are batched. The loss needs no
    labels, since up to the last tap there is no head to have an opinion on them: half the mean square of each tapped
    map, each map scaled to count the same, so that a filter matters as far as it moves what the detector reads.
    The network runs in evaluation mode: a batch norm in training mode undoes any scaling of a filter, which makes the
    sum of w * g exactly zero.

    Args:
        images: uint8 RGB (3, H, W) of any sizes, at least 8.
        batch: images whose gradients are summed before squaring.

    Raises:
        CompressError: too few images, or images of another kind.
    """
    require_enough(images, "taylor")
    network = copy.deepcopy(backbone).eval().to(memory_format=torch.channels_last)
    names = {member.name for group in groups for member, _ in group.filters()}
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # gradients that nobody reads are not computed
    weights = {name: network.trunk.get_parameter(f"{name}.weight").requires_grad_() for name in sorted(names)}
    sums = {name: torch.zeros(len(weight), dtype=torch.float64) for name, weight in weights.items()}
    steps = count(images, batch)
    for x in track(batches(images, network, batch), "gradients", steps):
        with torch.enable_grad():
            loss = _loss(network(x))
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is not None:
                product = (weight.detach() * gradient).flatten(1).sum(dim=1)
                sums[name] += product.double().square().cpu()
    return {name: total / steps for name, total in sums.items()}


def _loss(maps: Sequence[Tensor]) -> Tensor:
    tiny = torch.finfo(torch.float32).tiny
    means = [feature_map.square().mean() for feature_map in maps]
    return torch.stack([mean / (2 * mean.detach().clamp_min(tiny)) for mean in means]).sum()
