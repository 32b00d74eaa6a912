"""Recovery without labels: every kept channel is trained onto the same channel of the dense parent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from compress.backbone import Backbone
from compress.progress import Track, quiet
from compress.recovery.record import digests, float_copy, keeping_last_good, record_of, recovered, require_parent
from compress.training import Recipe, Report, Run, StageDistance, TrainingSet, find_device, train

STEPS = 1500
RECIPE = Recipe(optimizer="relative_muon", lr=0.015, batch=32, crop=112, area=(0.1, 0.6), frozen_norms=0.4)


def distill(
    slim: Backbone,
    teacher: Backbone,
    images: Sequence[Tensor],
    *,
    steps: int = STEPS,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Path | None = None,
    track: Track = quiet,
    report: Report | None = None,
) -> Backbone:
    """A new backbone of `slim`'s structure whose maps are near the teacher's (see `compress.training.stage_distance`).

    Any photographs will do, and need no labels: what counts is that they are many and varied.

    Args:
        slim: a pruned backbone.
        teacher: the dense backbone that it was cut from.
        images: uint8 RGB (3, H, W) of any sizes; a sequence or map-style dataset, not a DataLoader.
        steps, recipe, seed, device, checkpoint, track, report: see `compress.training.Run` and `Recipe`. With the seed
            and the images of an earlier recovery, the same images are held out; others may have been trained on.

    Returns:
        On the CPU, float32, in evaluation mode: the state that was best on the held-out images. The steps are
        recorded even if that is the one before the first of them.

    Raises:
        RecoveryError: the loss is not finite; the error's `backbone` is the last good state.
        CompressError: `slim` is dense, the teacher is not its parent, or the images will not do.
    """
    return recover(slim, teacher, images, Run(steps, recipe, seed, device, checkpoint, track, report))


@torch.inference_mode(False)
def recover(slim: Backbone, teacher: Backbone, images: Sequence[Tensor], run: Run) -> Backbone:
    """`distill`, as the registry calls it."""
    require_parent(slim, teacher)
    data = TrainingSet.of(images, run.recipe, mean=slim.mean, std=slim.std, seed=run.seed)
    student = float_copy(slim)
    distance = distance_to(teacher, slim, data, run)
    with keeping_last_good(slim, "distill", "trunk."):
        outcome = train(
            student,
            lambda batch, labels, progress: distance(student, batch),
            data,
            run,
            request={"verb": "distill", **digests(slim=slim, teacher=teacher)},
            title="distilling",
        )
    return recovered(slim, student.trunk.state_dict(), "distill", outcome.steps)


def distance_to(teacher: Backbone, slim: Backbone, data: TrainingSet, run: Run) -> StageDistance:
    """The loss of `slim`, its scales measured on the first training batches."""
    kept = record_of(slim).stage_channels
    return StageDistance(teacher, slim.stages, kept, data.first_batches(), find_device(run.device))
