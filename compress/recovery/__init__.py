"""The registry of recoveries: what gives a pruned backbone its quality back. One file each, one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from compress.backbone import Backbone
from compress.recovery import distillation
from compress.recovery.distillation import distill
from compress.recovery.record import RecoveryError
from compress.training import Recipe, Run


@dataclass(frozen=True)
class Recovery:
    """A way to recover.

    Attributes:
        recover: `recover(slim, teacher, images, run)` makes a new backbone.
        steps, recipe: what it is run with unless the user says otherwise.
        labelled: whether the images must come with their classes.
    """

    recover: Callable[[Backbone, Backbone, Sequence[Any], Run], Backbone]
    summary: str
    steps: int
    recipe: Recipe
    labelled: bool = False


RECOVERIES: dict[str, Recovery] = {
    "distill": Recovery(
        distillation.recover,
        "each kept channel is trained onto the same channel of the dense parent; any images, no labels",
        distillation.STEPS,
        distillation.RECIPE,
    ),
}

__all__ = ["RECOVERIES", "Recovery", "RecoveryError", "distill"]
