"""How far a network's stage maps are from its dense parent's, channel by channel: a loss that needs no labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from compress.backbone import Backbone
from compress.channel_statistics import RunningStatistics
from compress.errors import CompressError
from compress.feature_info import reduction
from compress.training.frozen import frozen

LEAST_STRIDE = 4  # the stem's map, at stride 2, is a quarter of all positions or more, and says little
LEAST_VARIANCE = 0.01  # of a channel, as a share of its stage's mean: a nearly silent one is no infinite error


class StageDistance:
    """Squared distance of stage maps to the teacher's, each channel over its own variance.

    A pruned channel keeps its identity: channel i of the student's map is compared with the channel of the
    teacher's map that it was cut from, so that no adapter stands between them and none is left behind. (FitNets,
    Romero 2015, eq. 3, without its regressor.) The loss is the mean over stages, channels, images and positions; 1 is
    the error of a student that gives each channel's mean.

    Args:
        teacher: the dense parent. A copy is kept on `device`.
        stages: the student's; those at stride 4 and more count, and every tapped one.
        kept: per stage, the teacher's channels that the student has; a stage that is missing has them all.
        batches: images (N, 3, S, S), normalised, that the channels' variances are measured on.

    Raises:
        CompressError: a kept channel is not in the teacher's map.
    """

    def __init__(
        self,
        teacher: Backbone,
        stages: Sequence[str],
        kept: Mapping[str, Sequence[int]],
        batches: Iterable[Tensor],
        device: torch.device,
    ) -> None:
        self._teacher = frozen(teacher, device)
        batches = [batch.to(device) for batch in batches]
        self.stages = _counted(self._teacher, stages, batches[0])
        variances = _variances(self._teacher, self.stages, batches)
        self._kept: list[Tensor | None] = []
        self._scales = []
        for stage, variance in zip(self.stages, variances, strict=True):
            channels = kept.get(stage)
            if channels is not None and max(channels) >= len(variance):
                raise CompressError(
                    f"channel {max(channels)} of {stage} was kept, and the teacher has {len(variance)}: "
                    "give the network that was pruned"
                )
            index = None if channels is None else torch.tensor(list(channels), device=device)
            floor = LEAST_VARIANCE * variance.mean().clamp_min(torch.finfo(torch.float32).tiny)
            scale = variance.clamp_min(floor).rsqrt()
            self._kept.append(index)
            self._scales.append((scale if index is None else scale[index]).view(1, -1, 1, 1))

    def __call__(self, student: Backbone, images: Tensor) -> Tensor:
        """The loss on a batch (N, 3, S, S), a scalar with gradients to the student.

        Raises:
            CompressError: the student's maps have other widths than `kept` says.
        """
        with torch.no_grad():
            targets = self._teacher.stage_maps(images, self.stages)
        total = images.new_zeros(())
        for stage, own, target, index, scale in zip(
            self.stages, student.stage_maps(images, self.stages), targets, self._kept, self._scales, strict=True
        ):
            aligned = target if index is None else target[:, index]
            if own.shape[1] != aligned.shape[1]:
                raise CompressError(
                    f"stage {stage} has {own.shape[1]} channels and {aligned.shape[1]} are recorded as kept: "
                    "prune again with this version"
                )
            total = total + ((own.float() - aligned.float()) * scale).square().mean()
        return total / len(self.stages)


@torch.no_grad()
def _counted(teacher: Backbone, stages: Sequence[str], images: Tensor) -> tuple[str, ...]:
    """The stages that the loss is made of."""
    maps = teacher.stage_maps(images[:1], stages)
    strides = [reduction(images.shape[-1], found.shape[-1]) for found in maps]
    return tuple(
        stage
        for stage, stride in zip(stages, strides, strict=True)
        if stride >= LEAST_STRIDE or stage in teacher.spec.taps
    )


@torch.no_grad()
def _variances(teacher: Backbone, stages: Sequence[str], batches: Sequence[Tensor]) -> list[Tensor]:
    """Per stage, the population variance (channels,) of each channel over all batches and positions."""
    running = [RunningStatistics() for _ in stages]
    for images in batches:
        for statistics, found in zip(running, teacher.stage_maps(images, stages), strict=True):
            statistics.add(found.permute(0, 2, 3, 1).flatten(0, 2))
    return [statistics.result().variance.float().to(batches[0].device) for statistics in running]
