"""Training with labels, by cross-entropy on the user's classes: a recovery, and a classifier that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.backbone import Backbone, assemble
from compress.classifier import Classifier, as_classifier
from compress.errors import CompressError
from compress.progress import Track, quiet
from compress.recovery.distillation import distance_to
from compress.recovery.record import digests, float_copy, keeping_last_good, record_of, recovered, require_parent
from compress.training import Loss, Recipe, Report, Run, TrainingSet, train
from compress.weights import WeightsOrigin
from compress.weights.fetched import sha256_of_state

STEPS = 1500
RECIPE = Recipe(optimizer="adamw", lr=1e-3, weight_decay=1e-2)


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


@torch.inference_mode(False)
def train_classifier(
    classifier: Classifier,
    images: Sequence[tuple[Tensor, int]],
    *,
    steps: int = STEPS,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Path | None = None,
    track: Track = quiet,
    report: Report | None = None,
) -> Classifier:
    """A new classifier, all of it trained on labelled images by cross-entropy; the given one is untouched.

    The backbone in it can be saved by itself: its record tells of the fine-tuning.

    Args:
        images: pairs of uint8 RGB (3, H, W) and the number of a class, from 0.
        steps, recipe, seed, device, checkpoint, track, report: see `compress.training.Run` and `Recipe`.

    Returns:
        On the CPU, float32, in evaluation mode: the state that was best on the held-out images.

    Raises:
        DivergedError: the loss is not finite.
        CompressError: the images have no labels, or more classes than the classifier.
    """
    run = Run(steps, recipe, seed, device, checkpoint, track, report)
    spec, classes = classifier.backbone.spec, classifier.head.out_features
    data = TrainingSet.of(images, recipe, labelled=True, mean=spec.mean, std=spec.std, seed=seed)
    if data.classes() > classes:
        raise CompressError(f"the images have {data.classes()} classes and the classifier {classes}: give it as many")
    student = as_classifier(float_copy(classifier.backbone), classes=classes)
    student.head.load_state_dict(classifier.head.state_dict())
    request = {"verb": "classify", **digests(classifier=classifier)}
    outcome = train(student, cross_entropy(student), data, run, request=request, title="training the classifier")
    state = student.backbone.trunk.state_dict()
    if spec.pruning is not None:
        student.backbone = recovered(classifier.backbone, state, "finetune", outcome.steps)
    else:
        origin = WeightsOrigin(f"{spec.weights.source}, fine-tuned", sha256_of_state(state))
        student.backbone = assemble(replace(spec, weights=origin), state)
    return student


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


@torch.inference_mode(False)
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
