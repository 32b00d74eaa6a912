"""What a run made of every test image: its scores, its small heat maps, and its curve over all pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reports.errors import ReportError

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.bool_]
CURVE = ("fpr", "tpr", "precision", "overlap")


@dataclass(frozen=True, eq=False)
class Scores:
    """The N test images of a run.

    Attributes:
        names: (N,) unlike one another; runs on the same data give the same names.
        labels: bool (N,), True = defective; scores: float (N,), larger = stranger.
        maps: uint8 (N, h, w), heat maps in few pixels and 256 steps, from `low` (0) to `high` (255) on the run's scale.
        pixels: float (4, T), T of 2 or more, the rows of `CURVE` over all thresholds on pixels, from the highest;
            None without masks.

    Raises:
        ReportError: the arrays do not describe the same N images.
    """

    names: list[str]
    labels: Labels
    scores: Floats
    maps: npt.NDArray[np.uint8]
    low: float
    high: float
    pixels: Floats | None

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count or len(set(self.names)) != count:
            raise ReportError(
                f"{count} names of test images, {len(set(self.names))} of them different: give unlike ones"
            )
        if self.labels.shape != (count,) or self.labels.dtype != np.bool_:
            raise ReportError(f"labels of shape {self.labels.shape}, type {self.labels.dtype}: give ({count},) of bool")
        if self.scores.shape != (count,) or self.scores.dtype.kind != "f" or not np.isfinite(self.scores).all():
            raise ReportError(f"scores of shape {self.scores.shape}: give ({count},) finite floats")
        if self.maps.ndim != 3 or len(self.maps) != count or self.maps.dtype != np.uint8 or not self.maps.size:
            raise ReportError(f"maps of shape {self.maps.shape}, type {self.maps.dtype}: give ({count}, h, w) of uint8")
        if self.pixels is not None and (
            self.pixels.ndim != 2
            or len(self.pixels) != len(CURVE)
            or self.pixels.shape[1] < 2
            or self.pixels.dtype.kind != "f"
            or not np.isfinite(self.pixels).all()
        ):
            told = f"a pixel curve of shape {self.pixels.shape}, type {self.pixels.dtype}"
            raise ReportError(f"{told}: give {len(CURVE)} rows of 2 or more finite floats")

    @property
    def two_sided(self) -> bool:
        """Whether there are good and defective images, without which no curve is defined."""
        return bool(self.labels.any() and not self.labels.all())

    def map_of(self, name: str) -> Floats:
        """The small heat map (h, w) of one image on the run's own scale."""
        shares: Floats = self.maps[self.names.index(name)] / 255.0
        return self.low + shares * (self.high - self.low)


def small_maps(maps: Floats, side: int = 28) -> tuple[npt.NDArray[np.uint8], float, float]:
    """Maps (N, H, W) as means over blocks, in 256 steps: uint8 (N, h, w), and the values of 0 and 255.

    A patch of the detector covers 8 x 8 pixels, and its map is blurred over 4: means over 8 x 8 keep what there is to
    see in a two-hundredth of the bytes. Blocks that do not fit whole are left out.
    """
    block = max(1, maps.shape[1] // side)
    h, w = maps.shape[1] // block, maps.shape[2] // block
    means = np.stack([each[: h * block, : w * block].reshape(h, block, w, block).mean((1, 3)) for each in maps])
    means = np.nan_to_num(means, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(means.min()), float(means.max())
    steps = (means - low) / (high - low) * 255 if high > low else np.zeros_like(means)
    return np.rint(steps).astype(np.uint8), low, high
