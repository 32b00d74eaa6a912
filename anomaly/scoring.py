"""From patch distances to an image score and a pixel map (Roth et al. 2022, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from anomaly.errors import AnomalyError

if TYPE_CHECKING:
    from anomaly.memory_bank import MemoryBank

IMAGE_SCORES = ("max", "reweighted", "top_mean")
SIGMA = 4.0  # pixels


@dataclass(frozen=True)
class Scoring:
    """How distances become scores. The default is the largest patch distance.

    Args:
        image: `max`, the largest patch distance; `reweighted`, that distance times a weight that falls where the
            bank is sparse (equation 7); `top_mean`, the mean of the `top` largest.
        neighbours: b of equation 7.
        top: patches that `top_mean` averages.
        map_neighbours: k: a patch's distance is the mean of those to its k nearest neighbours.

    Raises:
        AnomalyError: values that make no score.
    """

    image: str = "max"
    neighbours: int = 9
    top: int = 10
    map_neighbours: int = 1

    def __post_init__(self) -> None:
        if self.image not in IMAGE_SCORES:
            raise AnomalyError(f"no image score {self.image!r}: there are {', '.join(IMAGE_SCORES)}")
        for name, least in (("neighbours", 2), ("top", 1), ("map_neighbours", 1)):
            if getattr(self, name) < least:
                raise AnomalyError(f"{name} {getattr(self, name)} of the scoring is below {least}: raise it")


LARGEST = Scoring()


def image_scores(distances: Tensor) -> Tensor:
    """The largest patch distance of each image: (N, H, W) to (N,)."""
    return distances.flatten(1).amax(dim=1)


def top_mean(distances: Tensor, count: int) -> Tensor:
    """The mean of the `count` largest patch distances of each image, of all where there are fewer."""
    flat = distances.flatten(1)
    largest: Tensor = flat.topk(min(count, flat.shape[1]), dim=1).values
    return largest.mean(dim=1)


def reweighted(farthest: Tensor, nearest: Tensor, around: Tensor) -> Tensor:
    """Equation 7: s = (1 - exp |t - m*| / sum over m in N_b(m*) of exp |t - m|) |t - m*|.

    Args:
        farthest: (N, D) t, the patch of each image that is farthest from the bank.
        nearest: (N, D) m*, its nearest neighbour in the bank.
        around: (N, b, D) the b nearest neighbours of m* in the bank, m* among them.

    Returns:
        (N,), below |t - m*|.
    """
    distance = (farthest - nearest).norm(dim=1)
    spread = (farthest[:, None] - around).norm(dim=2)
    weight = 1 - (distance - spread.logsumexp(dim=1)).exp()  # the quotient, without overflow
    scores: Tensor = weight.clamp_min(0) * distance
    return scores


def score_images(distances: Tensor, patches: Tensor, bank: MemoryBank, how: Scoring) -> Tensor:
    """Image scores (N,) by `how`, of patch distances (N, H, W) and the patches (N, H, W, D) that have them.

    Raises:
        AnomalyError: equation 7 and a bank of one patch: its weight would always be 0.
    """
    if how.image == "top_mean":
        return top_mean(distances, how.top)
    if how.image == "max":
        return image_scores(distances)
    if len(bank) < 2:
        raise AnomalyError(
            "score reweighted weighs by neighbours in the bank, and it has 1 patch: keep more, or take max"
        )
    place = distances.flatten(1).argmax(dim=1)
    farthest = patches.flatten(1, 2)[torch.arange(len(patches), device=patches.device), place]
    _, rows = bank.search(farthest, 1)
    nearest = bank.vectors_at(rows[:, 0]).to(farthest.device)
    _, around = bank.search(nearest, how.neighbours)
    # A search that approximates may miss m* among its own neighbours.
    missed = (around != rows).all(dim=1)
    around[missed, -1] = rows[missed, 0]
    return reweighted(farthest, nearest, bank.vectors_at(around).to(farthest.device))


def anomaly_maps(distances: Tensor, size: int) -> Tensor:
    """Patch distances (N, H, W) upsampled bilinearly to (N, size, size) and smoothed by a Gaussian of 4 pixels."""
    upsampled = F.interpolate(distances[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    return torch.from_numpy(gaussian_filter(upsampled.cpu().numpy(), sigma=SIGMA, axes=(1, 2)))
