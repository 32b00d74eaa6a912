"""Locally aware patch features (Roth et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly.errors import AnomalyError

POOLINGS = ("average", "max", "both")
DRAWS = ("random", "first")


@dataclass(frozen=True)
class Embedding:
    """How feature maps become patch vectors. The default is PatchCore's.

    Args:
        pooling: of each neighbourhood: its average, its maximum, or both side by side (twice the length).
        kernel: side of the neighbourhood, in positions of a map; 1 is no pooling.
        stride: between neighbourhoods; 2 leaves a quarter of the patches.
        padding: zeros around a map, which a maximum ignores; None: kernel // 2, which keeps the size at stride 1
            where the kernel is odd.
        width: how many of the maps' channels are used; None: all. A random few lose little (PaDiM,
            Defard et al. 2021) and make every later stage cheaper.
        draw: the `width` channels: drawn from the seed, or the first of all.
        seed: of that draw.

    Raises:
        AnomalyError: values that make no patch.
    """

    pooling: str = "average"
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    width: int | None = None
    draw: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise AnomalyError(f"no pooling {self.pooling!r}: there are {', '.join(POOLINGS)}")
        if self.draw not in DRAWS:
            raise AnomalyError(f"no way {self.draw!r} to draw channels: there are {', '.join(DRAWS)}")
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("width", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise AnomalyError(f"{name} {value} of the patch embedding is below {least}: raise it")
        if self.padding is not None and 2 * self.padding > self.kernel:
            raise AnomalyError(f"padding {self.padding} is more than half the kernel {self.kernel}: lower it")
        if self.draw != "random" and self.width is None:
            raise AnomalyError(f"draw {self.draw!r} chooses among the channels, and all are used: give a width too")

    def channels(self, available: int) -> Tensor | None:
        """Indices of the channels in use of `available`, ascending; None for all.

        Raises:
            AnomalyError: there are fewer than `width`.
        """
        if self.width is None:
            return None
        if self.width > available:
            raise AnomalyError(f"width {self.width} is more than the {available} channels of the taps: lower it")
        if self.draw == "first":
            return torch.arange(self.width)
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(available, generator=generator)[: self.width].sort().values


PATCHCORE = Embedding()


def embed_patches(maps: Sequence[Tensor], how: Embedding = PATCHCORE) -> Tensor:
    """One vector per position of the shallowest map, made of all maps.

    Each map is pooled over neighbourhoods (by default averages of 3x3, stride 1, padding 1), the deeper ones are
    resized bilinearly to the first, and all are concatenated along the channels.

    Args:
        maps: feature maps (N, C_i, H_i, W_i), shallow first.

    Returns:
        (N, H, W, D), contiguous; by default H x W of the first map and D = sum C_i.

    Raises:
        AnomalyError: a kernel larger than a map, or more channels asked for than there are.
    """
    size = _pool(maps[0][:, :1], how).shape[-2:]
    pooled = [_pool(feature_map, how) for feature_map in _chosen(maps, how)]
    aligned = [
        each if each.shape[-2:] == size else F.interpolate(each, size=size, mode="bilinear", align_corners=False)
        for each in pooled
    ]
    return torch.cat(aligned, dim=1).permute(0, 2, 3, 1).contiguous()


def _chosen(maps: Sequence[Tensor], how: Embedding) -> Sequence[Tensor]:
    """The maps with the channels in use; those without any are left out."""
    counts = [feature_map.shape[1] for feature_map in maps]
    channels = how.channels(sum(counts))
    if channels is None:
        return maps
    used = torch.zeros(sum(counts), dtype=torch.bool).index_fill_(0, channels, True)
    own = torch.split(used, counts)
    return [each[:, mine.to(each.device)] for each, mine in zip(maps, own, strict=True) if mine.any()]


def _pool(feature_map: Tensor, how: Embedding) -> Tensor:
    padding = how.kernel // 2 if how.padding is None else how.padding
    smallest = min(feature_map.shape[-2:]) + 2 * padding
    if how.kernel > smallest:
        raise AnomalyError(
            f"kernel {how.kernel} is larger than a map of {smallest} positions, padding included: lower it"
        )
    parts = []
    if how.pooling != "max":
        parts.append(F.avg_pool2d(feature_map, how.kernel, how.stride, padding))
    if how.pooling != "average":
        parts.append(F.max_pool2d(feature_map, how.kernel, how.stride, padding))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
