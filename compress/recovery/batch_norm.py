"""Recovery without training: batch-norm statistics, which pruning has made wrong, are taken anew from images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.backbone import Backbone
from compress.errors import CompressError
from compress.progress import Track, quiet
from compress.recovery.record import float_copy, record_of, recovered
from compress.training import Recipe, Run, TrainingSet, find_device

ENOUGH = 1024  # images: more move the statistics by less than the choice of images does
BATCH = 16
RECIPE = Recipe(batch=BATCH, holdout=0.0)


def recalibrate(
    slim: Backbone,
    images: Sequence[Tensor],
    *,
    seed: int = 0,
    device: str = "auto",
    track: Track = quiet,
) -> Backbone:
    """A new backbone whose batch norms hold the mean statistics of centre views of the images; no weight changes.

    Every batch of 16 counts the same (the cumulative mean of `BatchNorm2d(momentum=None)`); of more than 1,024
    images, 1,024 drawn by `seed` are used.

    Args:
        slim: a pruned backbone.
        images: uint8 RGB (3, H, W) of any sizes, at least 16.

    Raises:
        CompressError: `slim` is dense or has no batch norm, or the images will not do.
    """
    record_of(slim)
    place = find_device(device)
    student = float_copy(slim).to(place)
    norms = [layer for layer in student.modules() if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats]
    if not norms:
        raise CompressError(f"{slim.spec.arch} has no batch norm to recalibrate: recover it by distillation")
    data = TrainingSet.of(images, RECIPE, mean=slim.mean, std=slim.std, seed=seed)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, instead of one that forgets
    batches = min(len(images), ENOUGH) // BATCH
    student.train()
    with torch.no_grad():
        for step in track(range(batches), "recalibrating", batches):
            student(data.views(step).images.to(place))
    return recovered(slim, student.trunk.state_dict(), "bn", 0)


def recover(slim: Backbone, teacher: Backbone, images: Sequence[Tensor], run: Run) -> Backbone:
    """`recalibrate`, as the registry calls it."""
    return recalibrate(slim, images, seed=run.seed, device=run.device, track=run.track)
