"""Training from scratch by a teacher's maps: what is asked of the student, and that it learns it."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from torch import Tensor

import compress
from compress import Backbone, CompressError, Recipe
from compress.drawn_images import DrawnImages
from compress.pretraining import HintDistance, pretrain
from compress.pretraining.hints import FORCED, blocks_of
from compress.pretraining.targets import ChannelTarget, ComponentTarget
from compress.training import Run
from compress.weights.fetched import sha256_of_state
from pipelines.models import parent_of

CPU = torch.device("cpu")
SMALL = Recipe(batch=4, crop=32, warm_up=2, check_every=2, lr=1e-2)


def noise(count: int = 2, side: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def photographs(count: int = 16) -> list[Tensor]:
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(0, 256, (3, 40, 40), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def teacher() -> Backbone:
    return compress.create_backbone("resnet18", weights="none", seed=5)


@pytest.fixture(scope="module")
def mobile() -> Backbone:
    return compress.create_backbone("mobilenet_v3_small", weights="none", seed=1)


class TestTargets:
    def test_each_channel_counts_over_its_own_variance(self) -> None:
        hints = torch.randn(8, 2, 5, 5) * torch.tensor([1.0, 5.0]).view(1, 2, 1, 1)
        target = ChannelTarget(hints)
        mean = hints.mean((0, 2, 3), keepdim=True).expand_as(hints)
        assert target.error(hints, target.of(hints)).item() == 0
        assert target.error(mean, hints).item() == pytest.approx(1, rel=1e-5)
        for half in (torch.cat([mean[:, :1], hints[:, 1:]], 1), torch.cat([hints[:, :1], mean[:, 1:]], 1)):
            assert target.error(half, hints).item() == pytest.approx(0.5, rel=1e-5)

    def test_a_silent_channel_is_no_infinite_error(self) -> None:
        hints = torch.randn(4, 3, 5, 5)
        hints[:, 1] = 0
        assert ChannelTarget(hints).error(hints + 0.1, hints).isfinite()

    def test_components_are_those_of_a_singular_value_decomposition(self) -> None:
        generator = torch.Generator().manual_seed(0)
        hints = torch.einsum("ck,nkhw->nchw", torch.randn(6, 6, generator=generator), torch.randn(4, 6, 8, 8)) + 3
        got = ComponentTarget(hints, torch.full((1, 2, 8, 8), -1.0)).of(hints).permute(0, 2, 3, 1).flatten(0, 2)
        patches = hints.permute(0, 2, 3, 1).flatten(0, 2).double()
        left, values, _ = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
        wanted = left[:, :2] * values[:2]
        assert torch.allclose(got.double().abs(), wanted.abs(), atol=1e-4)

    def test_giving_the_mean_costs_one(self) -> None:
        hints = torch.randn(8, 5, 9, 9)
        target = ComponentTarget(hints, torch.full((1, 3, 9, 9), -1.0))
        wanted = target.of(hints)
        assert target.error(wanted, wanted).item() == 0
        assert target.error(torch.zeros_like(wanted), wanted).item() == pytest.approx(1, rel=0.01)

    def test_a_bare_image_counts_over_its_own_variance(self) -> None:
        contrast = torch.tensor([1.0, 3.0]).repeat(8).view(-1, 1, 1, 1)
        hints = torch.randn(16, 3, 9, 9) * contrast
        hints = hints - hints.mean((0, 2, 3), keepdim=True)
        target = ComponentTarget(hints, torch.full((1, 3, 9, 9), -1.0))
        wanted = target.of(hints)
        bare, busy = (torch.where(contrast == one, 0, wanted) for one in (1, 3))
        ratio = target.error(busy, wanted).item() / target.error(bare, wanted).item()
        assert 1 < ratio < 2  # squared errors differ by 9, all over 0.1 of the mean variance more

    def test_more_channels_than_the_teacher_has_are_refused(self) -> None:
        with pytest.raises(CompressError, match="has 7 channels and the teacher's 5: give a wider teacher"):
            ComponentTarget(torch.randn(2, 5, 4, 4), torch.full((1, 7, 4, 4), -1.0))

    def test_maps_that_are_never_negative_cannot_be_components(self) -> None:
        with pytest.raises(CompressError, match="never negative"):
            ComponentTarget(torch.randn(2, 5, 4, 4), torch.ones(1, 3, 4, 4))


class TestHints:
    def test_a_copy_of_the_teacher_is_at_distance_zero(self, teacher: Backbone) -> None:
        twin = compress.create_backbone("resnet18", weights="none", seed=5)
        distance = HintDistance(twin, teacher, [noise()], CPU)
        assert distance(twin, noise(seed=1), 0.0).item() == pytest.approx(0, abs=1e-8)

    def test_there_is_a_hint_behind_the_stem_and_every_block(self, teacher: Backbone) -> None:
        assert len(blocks_of(teacher)) == 1 + 6
        x = noise()
        for block in blocks_of(teacher):
            x = block(x)
        assert torch.equal(x, teacher(noise())[-1])

    def test_forced_no_block_waits_for_the_one_before(self, teacher: Backbone) -> None:
        student = compress.create_backbone("resnet18", weights="none", seed=6)
        distance = HintDistance(student, teacher, [noise()], CPU)
        student.train()
        with torch.no_grad():
            forced, free = (distance(student, noise(), progress).item() for progress in (0.0, FORCED))
            for parameter in blocks_of(student)[1].parameters():
                parameter.mul_(1e3)  # of no use; those behind it must not suffer for it
            distances = [distance(student, noise(), progress).item() for progress in (0.0, FORCED)]
        assert forced != free
        alone = distances[0] - forced
        assert distances[1] - free > alone > 0

    def test_checks_run_the_student_as_it_will_run(self, teacher: Backbone) -> None:
        student = compress.create_backbone("resnet18", weights="none", seed=6)
        distance = HintDistance(student, teacher, [noise()], CPU)
        assert distance(student, noise(), 0.0).item() == distance(student, noise(), 1.0).item()

    def test_another_architecture_is_taught_components_at_strides_4_8_and_16(
        self, teacher: Backbone, mobile: Backbone
    ) -> None:
        distance = HintDistance(mobile, teacher, [noise(8)], CPU)
        assert distance._stages == ("layer1", "layer2", "layer3")
        ends = [blocks_of(mobile)[end] for end in distance._ends]
        assert ends == [mobile.trunk.get_submodule(f"features.{number}") for number in (1, 3, 8)]
        assert distance(mobile, noise(8), 1.0).item() > 0.5

    def test_the_teacher_sees_the_images_as_it_is_used_to(self, mobile: Backbone) -> None:
        other = compress.create_backbone("efficientnet_lite0", weights="none")
        assert other.mean != mobile.mean
        seen: list[Tensor] = []
        distance = HintDistance(mobile, other, [noise()], CPU)
        distance._teacher.trunk.conv_stem.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        distance(mobile, noise(), 1.0)
        pixels = noise() * torch.tensor(mobile.std).view(3, 1, 1) + torch.tensor(mobile.mean).view(3, 1, 1)
        assert torch.allclose(seen[0], (pixels - 0.5) / 0.5, atol=1e-5)

    def test_what_is_no_chain_of_blocks_is_refused(self, teacher: Backbone) -> None:
        with pytest.raises(CompressError, match="efficientnet_lite0 cannot be trained from scratch"):
            HintDistance(compress.create_backbone("efficientnet_lite0", weights="none"), teacher, [noise()], CPU)

    def test_a_teacher_that_ends_early_is_refused(self, mobile: Backbone) -> None:
        short = compress.create_backbone("resnet18", weights="none", taps=("layer2",))
        with pytest.raises(CompressError, match="and the student one at 16"):
            HintDistance(mobile, short, [noise()], CPU)

    @pytest.mark.parametrize("last", ["layer2", "layer4"])
    def test_a_teacher_of_the_same_architecture_must_end_where_the_student_does(self, last: str) -> None:
        student = compress.create_backbone("resnet18", weights="none")
        other = compress.create_backbone("resnet18", weights="none", taps=(last,))
        with pytest.raises(CompressError, match=f"the teacher ends at {last}, and the student, .* at layer3: tap"):
            HintDistance(student, other, [noise()], CPU)


class TestPretrain:
    def test_a_random_network_learns(self, teacher: Backbone) -> None:
        held: list[float] = []
        run = Run(12, SMALL, report=lambda step, loss, check: held.append(check) if check is not None else None)
        backbone = pretrain("resnet18", teacher, photographs(), run)
        assert min(held) < held[0]
        assert backbone.spec.pruning is None
        assert backbone.spec.weights.source == "pretrained on resnet18 (none (seed 5))"
        assert not backbone.training
        assert backbone.spec.weights.sha256 == sha256_of_state(backbone.trunk.state_dict())

    def test_another_architecture_learns_components(self, teacher: Backbone) -> None:
        """By the training loss: so few steps hardly move MobileNetV3's running statistics (momentum 0.01)."""
        losses: list[float] = []
        run = Run(24, SMALL, report=lambda step, loss, check: losses.append(loss))
        pretrain("mobilenet_v3_small", teacher, DrawnImages("textures", 16, size=40), run)
        assert fmean(losses[-8:]) < 0.7 * fmean(losses[:8])

    def test_its_parent_is_never_taken_for_random_weights(self, teacher: Backbone) -> None:
        """Although the teacher's were: `pretrained on resnet18 (none (seed 5))`."""
        slim = compress.prune(pretrain("mobilenet_v3_small", teacher, photographs(), Run(2, SMALL)), ratio=0.5)
        with pytest.raises(CompressError, match="are not those that were pruned"):
            parent_of(slim, weights="none")
        drawn = compress.create_backbone("mobilenet_v3_small", weights="none", seed=5)
        again = parent_of(compress.prune(drawn, ratio=0.5))
        assert torch.equal(next(again.parameters()), next(drawn.parameters()))

    def test_a_killed_training_ends_at_the_same_weights(self, teacher: Backbone, tmp_path: Path) -> None:
        def kill(step: int, loss: float, held_out: float | None) -> None:
            if step == 5:
                raise KeyboardInterrupt

        file = tmp_path / "training.state"
        with pytest.raises(KeyboardInterrupt):
            pretrain("resnet18", teacher, photographs(), Run(8, SMALL, checkpoint=file, report=kill))
        resumed = pretrain("resnet18", teacher, photographs(), Run(8, SMALL, checkpoint=file))
        whole = pretrain("resnet18", teacher, photographs(), Run(8, SMALL))
        for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_a_pruned_teacher_is_refused(self, teacher: Backbone) -> None:
        with pytest.raises(CompressError, match="the teacher is pruned"):
            pretrain("resnet18", compress.prune(teacher, ratio=0.5), photographs(), Run(2, SMALL))
