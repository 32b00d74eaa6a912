"""Hints: how far a network's maps, all along its way, are from a teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.backbone import Backbone
from compress.errors import CompressError
from compress.feature_info import reduction
from compress.pretraining.targets import ChannelTarget, ComponentTarget, Target
from compress.training.frozen import frozen

FORCED = 0.6  # share of the steps in which each piece is given the teacher's map, not the student's own
LEAST_STRIDE = 4  # maps of another architecture's stem, at stride 2, say little


class HintDistance:
    """Squared distance of a student's maps to a teacher's, at several places (hints; FitNets, Romero 2015, eq. 3).

    A teacher of the student's own architecture gives a hint behind every block (`ChannelTarget`), another one behind
    its last stages at strides 4, 8 and 16 (`ComponentTarget`). Either way the student ends with plain features, and
    no adapter is left behind.

    A teacher of the same architecture also forces: for the first `FORCED` of the steps each block is given the
    teacher's map as its input (teacher forcing, Williams 1989; block by block, Li 2020, arXiv 1911.13053), so that all
    blocks learn from the first step on and none waits for the one before it. After that they are trained as they will
    run. Components do not force: they lack half of what the next piece needs.

    Args:
        student: the network to train, a chain of blocks.
        teacher: a dense backbone that reaches the student's last stride. A copy is kept on `device`.
        batches: images (N, 3, S, S), normalised for the student, that the targets are measured on.

    Raises:
        CompressError: the student is no chain of blocks, or the teacher's maps cannot be its targets.
    """

    def __init__(self, student: Backbone, teacher: Backbone, batches: Sequence[Tensor], device: torch.device) -> None:
        self._teacher = frozen(teacher, device)
        # The images come normalised for the student: x std + mean is in [0, 1] again.
        own, other = (
            torch.tensor((net.mean, net.std), device=device).view(2, 1, 3, 1, 1) for net in (student, teacher)
        )
        self._factor, self._shift = own[1] / other[1], (own[0] - other[0]) / other[1]
        maps = _maps_of_blocks(student, batches[0][:1].cpu())
        side = batches[0].shape[-1]
        same = teacher.spec.arch == student.spec.arch
        if same and len(blocks_of(teacher)) != len(maps):
            raise CompressError(
                f"the teacher ends at {teacher.spec.taps[-1]}, and the student, a {student.spec.arch} too, at "
                f"{student.spec.taps[-1]}: tap the teacher there"
            )
        self._stages: tuple[str, ...] | None = None
        self._ends = tuple(range(len(maps)))
        if not same:
            last = {reduction(side, found.shape[-1]): place for place, found in enumerate(maps)}
            strides = [stride for stride in last if stride >= LEAST_STRIDE]
            self._ends = tuple(last[stride] for stride in strides)
            self._stages = _stages_at(self._teacher, strides)
        seen = [torch.cat(hints) for hints in zip(*(self._hints(batch.to(device)) for batch in batches), strict=True)]
        self._targets: list[Target] = [
            ChannelTarget(hints) if same else ComponentTarget(hints, maps[end])
            for hints, end in zip(seen, self._ends, strict=True)
        ]

    def __call__(self, student: Backbone, images: Tensor, progress: float) -> Tensor:
        """The loss on a batch (N, 3, S, S), a scalar with gradients to the student: the mean over the hints.

        1 is the loss of maps that give each channel's mean. A student in evaluation mode is never forced.

        Args:
            progress: share of the steps done, in [0, 1].
        """
        forced = self._stages is None and student.training and progress < FORCED
        hints = zip(self._targets, self._hints(images), strict=True)
        total, x = images.new_zeros(()), images
        for place, block in enumerate(blocks_of(student)):
            x = block(x)
            if place in self._ends:
                target, hint = next(hints)
                wanted = target.of(hint)
                total = total + target.error(x.float(), wanted)
                if forced:
                    x = wanted
        return total / len(self._targets)

    @torch.no_grad()
    def _hints(self, images: Tensor) -> list[Tensor]:
        """The teacher's maps (N, C_i, H_i, W_i), float32."""
        images = images * self._factor + self._shift
        if self._stages is None:
            return [found.float() for found in _maps_of_blocks(self._teacher, images)]
        return [found.float() for found in self._teacher.stage_maps(images, self._stages)]


def blocks_of(backbone: Backbone) -> list[nn.Module]:
    """The modules of `backbone` that run one after another.

    Raises:
        CompressError: it is no chain of blocks.
    """
    blocks = backbone.spec.architecture.factory.blocks(backbone.trunk)
    if not blocks:
        raise CompressError(
            f"{backbone.spec.arch} cannot be trained from scratch block by block: choose a torchvision network, such "
            "as resnet18 or mobilenet_v3_small"
        )
    return blocks


@torch.no_grad()
def _maps_of_blocks(backbone: Backbone, images: Tensor) -> list[Tensor]:
    maps = []
    for block in blocks_of(backbone):
        images = block(images)
        maps.append(images)
    return maps


@torch.no_grad()
def _stages_at(teacher: Backbone, strides: Sequence[int]) -> tuple[str, ...]:
    """The teacher's last stages at those strides.

    Raises:
        CompressError: it has none at one of them.
    """
    device = next(teacher.parameters()).device
    maps = teacher.stage_maps(torch.zeros(1, 3, 64, 64, device=device), teacher.stages)
    last = {reduction(64, found.shape[-1]): stage for stage, found in zip(teacher.stages, maps, strict=True)}
    for stride in strides:
        if stride not in last:
            raise CompressError(
                f"the teacher {teacher.spec.arch} has stages at strides {sorted(last)}, and the student one at "
                f"{stride}: give a teacher that has it too"
            )
    return tuple(last[stride] for stride in strides)
