"""Recovery with labels: cross-entropy on the user's classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.backbone import Backbone
from compress.errors import CompressError
from compress.progress import Track, quiet
from compress.recovery.distillation import distance_to
from compress.recovery.record import digests, float_copy, keeping_last_good, record_of, recovered, require_parent
from compress.training import Loss, Recipe, Report, Run, TrainingSet, train

STEPS = 1500
RECIPE = Recipe(optimizer="adamw", lr=1e-3, weight_decay=1e-2)


class Classifier(nn.Module):
    """A backbone, the global average of its last map, and a fresh linear layer of `classes` outputs.

    The backbone ends at its last tap, before the classifier of its architecture, so a head is drawn from `seed`.
    """

    def __init__(self, backbone: Backbone, classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(backbone.feature_info.channels()[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, classes) of images (N, 3, H, W)."""
        scores: Tensor = self.head(self.backbone(x)[-1].mean((2, 3)))
        return scores


def finetune(
    slim: Backbone,
    images: Sequence[tuple[Tensor, int]],
    *,
    teacher: Backbone | None = None,
    steps: int = STEPS,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Path | None = None,
    track: Track = quiet,
    report: Report | None = None,
) -> Backbone:
    """A new backbone of `slim`'s structure, trained to tell the images' classes apart.

    A linear head on the mean of the last map is trained along, and dropped at the end.

    Args:
        slim: a pruned backbone.
        images: pairs of uint8 RGB (3, H, W) and the number of a class, from 0. Their number is that of the dataset's
            `classes`, else one more than the largest label.
        teacher: the dense backbone that `slim` was cut from; with it, its distillation loss is added to the
            cross-entropy, one to one.
        steps, recipe, seed, device, checkpoint, track, report: see `compress.training.Run` and `Recipe`.

    Returns:
        On the CPU, float32, in evaluation mode: the state that was best on the held-out images.

    Raises:
        RecoveryError: the loss is not finite; the error's `backbone` is the last good state.
        CompressError: `slim` is dense, the teacher is not its parent, or the images have no labels or one class.
    """
    return _finetune(slim, teacher, images, Run(steps, recipe, seed, device, checkpoint, track, report))


def recover(slim: Backbone, teacher: Backbone, images: Sequence[tuple[Tensor, int]], run: Run) -> Backbone:
    """`finetune` on the labels alone, as the registry calls it."""
    return _finetune(slim, None, images, run)


def cross_entropy(student: Classifier) -> Loss:
    """The mean cross-entropy of the student's class scores.

    Raises (when called):
        CompressError: a label is beyond the student's classes.
    """

    def loss(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        if labels is None:
            raise CompressError("cross-entropy needs labels: give pairs of image and class")
        classes = student.head.out_features
        if int(labels.max()) >= classes:
            raise CompressError(f"label {int(labels.max())} of {classes} classes: they are numbered from 0")
        return F.cross_entropy(student(images).float(), labels)

    return loss


def _finetune(slim: Backbone, teacher: Backbone | None, images: Sequence[tuple[Tensor, int]], run: Run) -> Backbone:
    if teacher is None:
        record_of(slim)
    else:
        require_parent(slim, teacher)
    data = TrainingSet.of(images, run.recipe, labelled=True, mean=slim.mean, std=slim.std, seed=run.seed)
    student = Classifier(float_copy(slim), data.classes(), run.seed)
    supervised = cross_entropy(student)
    distance = None if teacher is None else distance_to(teacher, slim, data, run)

    def loss(batch: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        total = supervised(batch, labels, progress)
        return total if distance is None else total + distance(student.backbone, batch)

    with keeping_last_good(slim, "finetune", "backbone.trunk."):
        outcome = train(
            student,
            loss,
            data,
            run,
            request={"verb": "finetune", **digests(slim=slim, teacher=teacher)},
            title="fine-tuning",
        )
    return recovered(slim, student.backbone.trunk.state_dict(), "finetune", outcome.steps)
