"""The registry of recoveries: what gives a pruned backbone its quality back. One file each, one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from compress.backbone import Backbone
from compress.recovery import batch_norm, distillation, finetuning
from compress.recovery.batch_norm import recalibrate
from compress.recovery.distillation import distill
from compress.recovery.finetuning import finetune, train_classifier
from compress.recovery.record import RecoveryError
from compress.recovery.reinitialisation import reinitialise
from compress.training import Recipe, Run


@dataclass(frozen=True)
class Recovery:
    """A way to recover.

    Attributes:
        recover: `recover(slim, teacher, images, run)` makes a new backbone.
        steps, recipe: what it is run with unless the user says otherwise; 0 steps where nothing is trained.
        labelled: whether the images must come with their classes.
        taught: whether it learns from the dense parent; the others never look at the teacher that they are given.
    """

    recover: Callable[[Backbone, Backbone, Sequence[Any], Run], Backbone]
    summary: str
    steps: int
    recipe: Recipe
    labelled: bool = False
    taught: bool = False


RECOVERIES: dict[str, Recovery] = {
    "distill": Recovery(
        distillation.recover,
        "each kept channel is trained onto the same channel of the dense parent; any images, no labels",
        distillation.STEPS,
        distillation.RECIPE,
        taught=True,
    ),
    "finetune": Recovery(
        finetuning.recover,
        "supervised: cross-entropy of a linear head, which is dropped afterwards; images with their classes",
        finetuning.STEPS,
        finetuning.RECIPE,
        labelled=True,
    ),
    "bn": Recovery(
        batch_norm.recover,
        "no training: batch-norm statistics are taken anew from images",
        0,
        batch_norm.RECIPE,
    ),
}
"""By name, what wins back what a cut cost."""

__all__ = [
    "RECOVERIES",
    "Recovery",
    "RecoveryError",
    "distill",
    "finetune",
    "recalibrate",
    "reinitialise",
    "train_classifier",
]
