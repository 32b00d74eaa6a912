"""What each prunable group is worth to the feature maps: every group cut alone, at several ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.augment import centre_view
from compress.backbone import UNPRUNED, Backbone, Pruning
from compress.cost import count_macs, count_parameters
from compress.errors import CompressError
from compress.image_kinds import require_image, require_sequence
from compress.networks.evaluating import evaluating
from compress.progress import Track, quiet
from compress.pruning.ranking import find_method, rank, remove
from compress.pruning.selection import Rule, select

RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)
_BATCH = 8


@dataclass(frozen=True)
class Sensitivity:
    """One group cut alone at one ratio.

    Attributes:
        group: the group's root layer; `layers` are all whose outputs are the group.
        channels: of the group before the cut; `removed` of them go, and one stays at least.
        error: of the tapped maps' kept channels c, the mean over taps of sum_c E[(slim_c - dense_c)^2] over
            sum_c Var[dense_c], over images and positions: 0 is no change, 1 as far off as a constant map.
        lost: mean over taps of the share of the dense map's variance that lies in channels that went with the
            group, in [0, 1]; 0 unless the group comes out in a tapped map.
        params_saved, macs_saved: of the part up to the last tap.
    """

    group: str
    layers: tuple[str, ...]
    channels: int
    removed: int
    ratio: float
    error: float
    lost: float
    params_saved: int
    macs_saved: int


def sensitivity(
    backbone: Backbone,
    *,
    images: Sequence[Tensor],
    method: str = "magnitude",
    ratios: Sequence[float] = RATIOS,
    seed: int = 0,
    track: Track = quiet,
) -> list[Sensitivity]:
    """Cut each prunable group alone, its lowest scores first, and compare the tapped maps with the uncut ones.

    Nothing is trained before or after a cut.

    Args:
        images: uint8 RGB (3, H, W) of any sizes; 16 are plenty. Methods that read images rank by them too.
        method: a name in `METHODS`.
        ratios: shares of the group's channels to remove, in (0, 1).
        seed: of the random choices that a method makes.

    Returns:
        A row per group and ratio, groups from the input to the last tap.

    Raises:
        CompressError: no images or ratios, a ratio outside (0, 1), an unknown method, or a network that cannot be
            pruned.
    """
    _check(images, ratios)
    needed = None if find_method(method).reads == "weights" else images
    ranking = rank(backbone, method=method, seed=seed, images=needed, track=track)
    batch = torch.stack([centre_view(require_image(images[place], place)) for place in range(len(images))])
    backbone = ranking.backbone  # in float32
    dense = _maps(backbone, batch)
    params, macs = count_parameters(backbone), count_macs(backbone, backbone.spec.size)
    order = {name: place for place, name in enumerate(dict(backbone.trunk.named_modules()))}
    places = sorted(range(len(ranking.groups)), key=lambda place: order[ranking.groups[place].root])
    cuts = [(place, ratio) for place in places for ratio in ratios]
    rows = []
    for place, ratio in track(cuts, "cutting each group alone", len(cuts)):
        group, scores = ranking.groups[place], ranking.scores[place]
        # The limit leaves one channel where the ratio would leave none.
        (gone,) = select([group], [scores], ratio, Rule(max_layer_ratio=max(ratio, 0.999)))
        recorded = Pruning(ranking.method, ratio, "local", seed, "none", kept={}, tail_shapes={})
        slim = remove(backbone, {group.root: gone}, recorded)
        error, lost = _compare(dense, _maps(slim, batch), _kept(backbone, slim))
        rows.append(
            Sensitivity(
                group=group.root,
                layers=tuple(member.name for member, _ in group.filters()),
                channels=group.size,
                removed=len(gone),
                ratio=ratio,
                error=error,
                lost=lost,
                params_saved=params - count_parameters(slim),
                macs_saved=macs - count_macs(slim, slim.spec.size),
            )
        )
    return rows


def _check(images: Sequence[Tensor], ratios: Sequence[float]) -> None:
    require_sequence(images)
    if not len(images):
        raise CompressError("0 images to compare feature maps on: give 1 at least, 16 are plenty")
    if not ratios:
        raise CompressError("no ratios to cut at: give some in (0, 1), like 0.1,0.5,0.9")
    for ratio in ratios:
        if not 0 < ratio < 1:
            raise CompressError(f"ratio {ratio} is outside (0, 1): 0.5 removes half of the channels of a group")


@torch.inference_mode()
def _maps(backbone: Backbone, images: Tensor) -> list[Tensor]:
    """The tapped maps of uint8 images, one tensor (N, C, H, W) for each tap."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    with evaluating(backbone):
        parts = [backbone((part.float() / 255 - mean) / std) for part in torch.split(images, _BATCH)]
    return [torch.cat(maps) for maps in zip(*parts, strict=True)]


def _kept(before: Backbone, after: Backbone) -> list[list[int]]:
    """Per tap, the channels of the map of `before` that `after` still has."""
    parents = (before.spec.pruning or UNPRUNED).stage_channels
    stayed = (after.spec.pruning or UNPRUNED).stage_channels
    kept = []
    for tap, width in zip(before.spec.taps, before.feature_info.channels(), strict=True):
        place = {parent: index for index, parent in enumerate(parents.get(tap, range(width)))}
        kept.append([place[parent] for parent in stayed.get(tap, place)])
    return kept


def _compare(dense: Sequence[Tensor], slim: Sequence[Tensor], kept: Sequence[Sequence[int]]) -> tuple[float, float]:
    """`Sensitivity.error` and `Sensitivity.lost`."""
    errors, losses = [], []
    for whole, own, channels in zip(dense, slim, kept, strict=True):
        variance = whole.var(dim=(0, 2, 3), correction=0)
        stayed = variance[list(channels)].sum()
        squared = (own - whole[:, list(channels)]).square().mean(dim=(0, 2, 3)).sum()
        errors.append(float(squared / stayed.clamp_min(torch.finfo(stayed.dtype).tiny)))
        losses.append(1 - float(stayed / variance.sum().clamp_min(torch.finfo(stayed.dtype).tiny)))
    return sum(errors) / len(errors), max(0.0, sum(losses) / len(losses))
