"""Training from scratch: a backbone of random weights learns a teacher's features, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from compress.backbone import Backbone, assemble, create_backbone
from compress.errors import CompressError
from compress.pretraining.hints import HintDistance
from compress.training import Recipe, Run, TrainingSet, digest_of, find_device, train
from compress.weights import WeightsOrigin
from compress.weights.fetched import sha256_of_state

# Small crops and many, as textures need no more; and steps enough for a network's own momentum.
RECIPE = Recipe(batch=32, crop=112, check_every=250, least_momentum=0.0)


@torch.inference_mode(False)
def pretrain(arch: str, teacher: Backbone, images: Sequence[Tensor], run: Run) -> Backbone:
    """A dense backbone trained from random weights until its maps are the teacher's (see `HintDistance`).

    Args:
        arch: a registered architecture that is a chain of blocks; its own taps are used.
        teacher: a dense backbone, of the same architecture or another one.
        images: uint8 RGB (3, H, W) of any sizes, no labels: a sequence or map-style dataset, not a DataLoader.
        run: how long, by which recipe (`RECIPE` suits), with which seed, where.

    Returns:
        On the CPU, float32, in evaluation mode: the state that was best on the held-out images.

    Raises:
        CompressError: the teacher is pruned or cannot teach `arch`, or the images will not do.
        DivergedError: the loss is not finite.
    """
    if teacher.spec.pruning is not None:
        raise CompressError("the teacher is pruned: give a dense backbone")
    student = create_backbone(arch, weights="none", seed=run.seed)
    start = digest_of(student.state_dict())
    data = TrainingSet.of(images, run.recipe, mean=student.mean, std=student.std, seed=run.seed)
    distance = HintDistance(student, teacher, data.first_batches(), find_device(run.device))
    train(
        student,
        lambda batch, labels, progress: distance(student, batch, progress),
        data,
        run,
        request={"verb": "pretrain", "student": start, "teacher": digest_of(teacher.state_dict())},
        title=f"training {arch}",
    )
    state = student.trunk.state_dict()
    source = f"pretrained on {teacher.spec.arch} ({teacher.spec.weights.source})"
    return assemble(replace(student.spec, weights=WeightsOrigin(source, sha256_of_state(state))), state)
