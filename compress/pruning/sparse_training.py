"""The sparse phase before a cut: the dense network learns to do without the channels that will go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.backbone import Backbone, assemble
from compress.classifier import Classifier
from compress.graph import ChannelGroup
from compress.importance import Penalty
from compress.progress import Track, quiet
from compress.recovery.finetuning import cross_entropy
from compress.recovery.record import digests, float_copy
from compress.training import Loss, Recipe, Report, Run, StageDistance, TrainingSet, find_device, train

# The last state counts, not the best: a held-out loss would prefer the state before any channel was silenced.
RECIPE = Recipe(optimizer="adamw", lr=1e-3, holdout=0.0)


@torch.inference_mode(False)
def train_sparse(
    backbone: Backbone,
    groups: Sequence[ChannelGroup],
    make_penalty: Callable[[Sequence[ChannelGroup]], Penalty],
    images: Sequence[Any],
    *,
    name: str,
    steps: int,
    labelled: bool = False,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Path | None = None,
    track: Track = quiet,
    report: Report | None = None,
) -> Backbone:
    """A new backbone of the same structure, trained under a penalty that drives channels towards silence.

    The loss is the distance of all stage maps to those of `backbone` itself (see `compress.training.stage_distance`)
    or, with labels, the cross-entropy of a linear head that is dropped at the end; the penalty is added to it.

    Args:
        backbone: what is to be pruned. It is left as it is.
        groups: the prunable groups of its trunk.
        make_penalty: the method's term, made from the same groups with the layers of the network that is trained.
        images: uint8 RGB (3, H, W) or, if `labelled`, pairs of such an image and its class.
        name: of the method with its settings: a checkpoint of another name is refused.
        steps, recipe, seed, device, checkpoint, track, report: see `compress.training.Run` and `Recipe`.

    Raises:
        DivergedError: the loss is not finite. No half-trained backbone is handed over: `backbone` is as it was, and the
            checkpoint, if there is one, holds the last check.
        CompressError: the images will not do.
    """
    run = Run(steps, replace(recipe, holdout=0.0), seed, device, checkpoint, track, report)
    data = TrainingSet.of(images, run.recipe, labelled=labelled, mean=backbone.mean, std=backbone.std, seed=seed)
    twin = float_copy(backbone)
    student: nn.Module = twin
    if labelled:
        student = classifier = Classifier(twin, data.classes(), seed)
        near = cross_entropy(classifier)
    else:
        near = _distance_to_itself(twin, backbone, data, run)
    # Moved first, so that the penalty's own tensors are made where the layers are.
    student.to(find_device(device))
    penalty = make_penalty([group.inside(twin.trunk) for group in groups])
    train(
        student,
        lambda batch, labels, progress: near(batch, labels, progress) + penalty(progress),
        data,
        run,
        request={"verb": "sparse", "method": name, "labelled": labelled, **digests(backbone=backbone)},
        title="sparse training",
    )
    return assemble(backbone.spec, twin.trunk.state_dict())


def _distance_to_itself(student: Backbone, backbone: Backbone, data: TrainingSet, run: Run) -> Loss:
    """How far the student's stage maps, all channels of them, are from the network's that it was copied from."""
    distance = StageDistance(backbone, backbone.stages, {}, data.first_batches(), find_device(run.device))

    def loss(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        return distance(student, images)

    return loss
