"""What every dataset reader gives: categories of samples, split into training and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from anomaly.errors import AnomalyError

GOOD = "good"
TRAIN_SHARE = 0.7

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """An image file. `kind` is `good` or the kind of defect; `mask` marks the defective pixels, where known."""

    image: Path
    kind: str
    mask: Path | None = None

    @property
    def is_defective(self) -> bool:
        return self.kind != GOOD


@dataclass(frozen=True)
class Category:
    """One object or surface: good images to learn from, good and defective ones to be judged on.

    Attributes:
        test: empty where a detector is only to be fitted.

    Raises:
        AnomalyError: no images to train with, or masks for some defective images and not for others.
    """

    dataset: str
    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]

    def __post_init__(self) -> None:
        if not self.train:
            raise AnomalyError(f"{self.dataset}/{self.name} has no train images: add some")
        unmasked = [sample.image for sample in self.test if sample.is_defective and sample.mask is None]
        if unmasked and any(sample.mask for sample in self.test):
            raise AnomalyError(
                f"{self.dataset}/{self.name}: {len(unmasked)} defective images have no mask while others have, "
                f"{unmasked[0]} first: add theirs or remove all masks"
            )

    def require_test(self) -> None:
        """Refuses a category that nothing can be judged on.

        Raises:
            AnomalyError: no test images.
        """
        if not self.test:
            raise AnomalyError(f"{self.dataset}/{self.name} has no test images: add some, or choose another category")

    @property
    def has_masks(self) -> bool:
        """Whether every defective test image has a mask, so that pixels can be judged too."""
        defective = [sample for sample in self.test if sample.is_defective]
        return bool(defective) and all(sample.mask is not None for sample in defective)

    @property
    def is_two_sided(self) -> bool:
        """Whether the test split holds both good and defective images, without which no AUROC exists."""
        return len({sample.is_defective for sample in self.test}) == 2


def split_good(samples: Sequence[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """A fixed random 70 % to train with and the rest to test with, for datasets without a split of their own.

    The split does not follow the run's seed: results on one dataset stay comparable.
    """
    order = np.random.default_rng(0).permutation(len(samples))
    cut = min(max(round(len(samples) * TRAIN_SHARE), 1), len(samples) - 1)
    train, test = sorted(order[:cut]), sorted(order[cut:])
    return tuple(samples[index] for index in train), tuple(samples[index] for index in test)
