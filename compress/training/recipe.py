"""How a network is trained: the settings that every training of this package has."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compress.errors import CompressError
from compress.training.optimizer import OPTIMIZERS


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        optimizer: `relative_muon`, `muon` or `adamw`, see `compress.training.optimizer`.
        lr: at its peak; above 0. Of `relative_muon` a share of each weight, of the others an absolute rate.
        batch: images a step, at least 2 (batch norm needs more than one).
        crop: side of the training crops in pixels, at least 32.
        area: least and largest share of an image's area that a crop covers, in (0, 1].
        warm_up: steps over which the rate rises to its peak; from there it falls to 0 along a cosine.
        weight_decay: decoupled; at least 0.
        holdout: share of the images that checks are made on, in [0, 1), at least 8 and at most 64 images.
            0: no checks, and the last state counts instead of the best.
        check_every: steps between checks; a checkpoint is written at each.
        patience: checks in a row, in the second half of the steps, without a lower held-out loss than any check after
            a step had, that end the training; at least 1.
        frozen_norms: share of the steps, the last ones, in which batch norms normalise by their running statistics, as
            they will when the network is used, and keep these as they are; in [0, 1].
        least_momentum: of the batch norms' running statistics, in [0, 1]. Networks whose own is smaller were made for
            hundreds of thousands of steps (MobileNetV3 has 0.01), and in some hundred theirs would lag behind.
    """

    optimizer: str = "muon"
    lr: float = 6e-3
    batch: int = 16
    crop: int = 224
    area: tuple[float, float] = (0.3, 1.0)
    warm_up: int = 50
    weight_decay: float = 0.0
    holdout: float = 0.05
    check_every: int = 100
    patience: int = 10
    frozen_norms: float = 0.0
    least_momentum: float = 0.1

    def __post_init__(self) -> None:
        limits = (
            ("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("batch", self.batch >= 2, "at least 2"),
            ("crop", self.crop >= 32, "at least 32 pixels"),
            ("area", 0 < self.area[0] <= self.area[1] <= 1, "two shares in (0, 1], the least first"),
            ("warm_up", self.warm_up >= 0, "at least 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("holdout", 0 <= self.holdout < 1, "in [0, 1)"),
            ("check_every", self.check_every >= 1, "at least 1"),
            ("patience", self.patience >= 1, "at least 1"),
            ("frozen_norms", 0 <= self.frozen_norms <= 1, "in [0, 1]"),
            ("least_momentum", 0 <= self.least_momentum <= 1, "in [0, 1]"),
        )
        for name, holds, limit in limits:
            if not holds:
                raise CompressError(f"{name} {getattr(self, name)} of a training recipe must be {limit}")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of one of `steps` steps (Loshchilov 2017, eq. 5, behind a linear warm-up)."""
        return self.lr * min(1.0, (step + 1) / max(1, self.warm_up)) * 0.5 * (1 + math.cos(math.pi * step / steps))
