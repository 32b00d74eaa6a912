"""What every dataset reader gives: categories of samples, split into training and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GOOD = "good"


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
    """One object or surface: good images to learn from, good and defective ones to be judged on."""

    dataset: str
    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def has_masks(self) -> bool:
        """Whether every defective test image has a mask, so that pixels can be judged too."""
        defective = [sample for sample in self.test if sample.is_defective]
        return bool(defective) and all(sample.mask is not None for sample in defective)

    @property
    def is_two_sided(self) -> bool:
        """Whether the test split holds both good and defective images, without which no AUROC exists."""
        return len({sample.is_defective for sample in self.test}) == 2
