"""Recoveries: channels stay aligned with the dense parent, the record says what was done, and refusals."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import same
from torch import Tensor, nn

import compress
from compress import RECOVERIES, Backbone, CompressError, Recipe, RecoveryError
from compress.backbone import assemble
from compress.pruning import channel_groups
from compress.pruning.sparse_training import train_sparse
from compress.recovery.distillation import distance_to
from compress.training import Run, StageDistance, TrainingSet

SMALL = Recipe(lr=2e-3, batch=4, crop=64, warm_up=2, check_every=5, patience=50)


@pytest.fixture(scope="module")
def photographs() -> list[Tensor]:
    """Smooth images of several sizes."""
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.rand(1, 3, 6, 6 + index % 2, generator=generator) for index in range(24)]
    return [nn.functional.interpolate(image, (72, 80), mode="bilinear")[0].mul(255).byte() for image in coarse]


@pytest.fixture(scope="module")
def dense(photographs: list[Tensor]) -> Backbone:
    """A random ResNet-18 whose batch norms know the images, so that all its maps are of one size."""
    net = compress.create_backbone("resnet18", weights="none")
    calibrated = compress.recalibrate(compress.prune(net, ratio=0.0), photographs)
    return assemble(net.spec, calibrated.trunk.state_dict())


@pytest.fixture(scope="module")
def slim(dense: Backbone) -> Backbone:
    return compress.prune(dense, ratio=0.5, method="random")


@pytest.fixture(scope="module")
def labelled(photographs: list[Tensor]) -> list[tuple[Tensor, int]]:
    """Two classes: photographs, and the same in the dark."""
    return [(image if index % 2 else image // 8, index % 2) for index, image in enumerate(photographs)]


def tensors(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def held_out_losses(seen: list[tuple[int, float]]) -> compress.training.Report:
    def report(done: int, loss: float, held_out: float | None) -> None:
        if held_out is not None:
            seen.append((done, held_out))

    return report


def distance_of(slim: Backbone, dense: Backbone, images: list[Tensor]) -> float:
    """The distillation loss of `slim` on held-out images, in evaluation mode."""
    run = Run(1, SMALL)
    data = TrainingSet.of(images, run.recipe, mean=slim.mean, std=slim.std, seed=run.seed)
    distance = distance_to(dense, slim, data, run)
    with torch.no_grad():
        losses = [distance(slim, batch.images).item() for batch in data.held_out()]
    return sum(losses) / len(losses)


def test_distillation_brings_the_maps_nearer(slim: Backbone, dense: Backbone, photographs: list[Tensor]) -> None:
    seen: list[tuple[int, float]] = []
    before, parent = tensors(slim), tensors(dense)
    recipe = replace(SMALL, lr=6e-3, batch=8)
    better = compress.distill(slim, dense, photographs, steps=80, recipe=recipe, report=held_out_losses(seen))
    start, end = (distance_of(each, dense, photographs) for each in (slim, better))
    assert end < 0.7 * start
    assert min(loss for _, loss in seen) < 0.7 * seen[0][1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in slim.state_dict().items())
    assert all(torch.equal(tensor, parent[name]) for name, tensor in dense.state_dict().items())
    assert not better.training
    assert not slim.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in better.parameters())


def test_a_slim_network_that_is_an_exact_part_of_its_parent_has_no_loss(
    dense: Backbone, photographs: list[Tensor]
) -> None:
    """Silence the channels that will go: those that stay compute what they did, and are compared with themselves."""
    gone = compress.prune(dense, ratio=0.5, method="random")
    assert gone.spec.pruning is not None
    silent = assemble(dense.spec, tensors_without(dense, gone))
    slim = compress.prune(dense, ratio=0.5, method="random")
    assert distance_of(slim, silent, photographs) < 1e-8
    assert slim.spec.pruning is not None
    shuffled = {stage: [*kept[1:], kept[0]] for stage, kept in slim.spec.pruning.stage_channels.items()}
    wrong = dataclasses.replace(slim.spec, pruning=dataclasses.replace(slim.spec.pruning, stage_channels=shuffled))
    assert distance_of(assemble(wrong, slim.trunk.state_dict()), silent, photographs) > 0.1


def tensors_without(dense: Backbone, slim: Backbone) -> dict[str, Tensor]:
    """The dense network's tensors with zeros for each channel that `slim` lost, in its filters and its batch norm."""
    assert slim.spec.pruning is not None
    state = {name: tensor.clone() for name, tensor in dense.trunk.state_dict().items()}
    for layer, kept in slim.spec.pruning.kept.items():
        norm = layer.replace("conv", "bn").replace("downsample.0", "downsample.1")
        gone = sorted(set(range(len(state[f"{layer}.weight"]))) - set(kept))
        for name in (f"{layer}.weight", f"{norm}.weight", f"{norm}.bias", f"{norm}.running_mean"):
            state[name][gone] = 0
    return state


def test_nothing_pruned_is_nothing_to_recover(dense: Backbone, photographs: list[Tensor]) -> None:
    """At ratio 0 the loss is 0 before the first step, so that no later state is better."""
    whole = compress.prune(dense, ratio=0.0)
    result = compress.distill(whole, dense, photographs, steps=3, recipe=SMALL)
    assert same(result, whole)


def test_the_loss_by_hand(dense: Backbone, slim: Backbone, photographs: list[Tensor]) -> None:
    """Each stage by itself: the mean squared difference of aligned channels over the dense channel's variance."""
    run = Run(1, SMALL)
    data = TrainingSet.of(photographs, run.recipe, mean=slim.mean, std=slim.std, seed=run.seed)
    batches = [data.batch(step).images for step in range(2)]
    assert slim.spec.pruning is not None
    kept = slim.spec.pruning.stage_channels
    distance = StageDistance(dense, slim.stages, kept, batches, torch.device("cpu"))
    assert distance.stages == ("layer1", "layer2", "layer3")  # relu, the stem, has stride 2
    expected = []
    with torch.no_grad():
        images = data.batch(7).images
        for stage in distance.stages:
            every = torch.cat([dense.stage_maps(batch, [stage])[0] for batch in batches])
            variance = every.var((0, 2, 3), correction=0)
            variance = variance.clamp_min(0.01 * float(variance.mean()))
            difference = dense.stage_maps(images, [stage])[0][:, kept[stage]] - slim.stage_maps(images, [stage])[0]
            expected.append((difference.square().mean((0, 2, 3)) / variance[kept[stage]]).mean())
        assert distance(slim, images).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_lite0", "regnety_002"])
def test_other_families_are_distilled(name: str, photographs: list[Tensor]) -> None:
    dense = compress.create_backbone(name, weights="none")
    slim = compress.prune(dense, ratio=0.5)
    seen: list[tuple[int, float]] = []
    result = compress.distill(slim, dense, photographs, steps=2, recipe=SMALL, report=held_out_losses(seen))
    assert len(seen) == 1
    assert [m.shape for m in result(torch.zeros(1, 3, 64, 64))] == [m.shape for m in slim(torch.zeros(1, 3, 64, 64))]


def test_a_killed_distillation_goes_on_to_the_same_weights(
    slim: Backbone, dense: Backbone, photographs: list[Tensor], tmp_path: Path
) -> None:
    def kill(done: int, loss: float, held_out: float | None) -> None:
        if done == 7:
            raise KeyboardInterrupt

    file = tmp_path / "state.safetensors"
    unbroken = compress.distill(slim, dense, photographs, steps=10, recipe=SMALL)
    with pytest.raises(KeyboardInterrupt):
        compress.distill(slim, dense, photographs, steps=10, recipe=SMALL, checkpoint=file, report=kill)
    assert same(compress.distill(slim, dense, photographs, steps=10, recipe=SMALL, checkpoint=file), unbroken)
    other = compress.prune(dense, ratio=0.4)
    with pytest.raises(CompressError, match=r"another request \(slim .*delete it or name another file"):
        compress.distill(other, dense, photographs, steps=10, recipe=SMALL, checkpoint=file)


def test_a_distillation_that_diverges_hands_over_the_last_good_backbone(
    slim: Backbone, dense: Backbone, photographs: list[Tensor]
) -> None:
    hot = replace(SMALL, lr=1e30, warm_up=0)
    with pytest.raises(
        RecoveryError, match=r"not finite at step .*lower the learning rate.*; the last good state is that of"
    ) as caught:
        compress.distill(slim, dense, photographs, steps=10, recipe=hot)
    good = caught.value.backbone
    assert good.spec.pruning is not None
    assert good.spec.pruning.recover == "distill"
    assert all(bool(tensor.isfinite().all()) for tensor in good.state_dict().values())


def test_the_record_is_saved_with_the_artifact(
    slim: Backbone, dense: Backbone, photographs: list[Tensor], tmp_path: Path
) -> None:
    once = compress.distill(slim, dense, photographs, steps=2, recipe=SMALL)
    twice = compress.distill(once, dense, photographs, steps=3, recipe=SMALL)
    compress.save(twice, tmp_path / "slim.safetensors")
    loaded = compress.load_backbone(tmp_path / "slim.safetensors")
    assert loaded.spec.pruning is not None
    assert (loaded.spec.pruning.recover, loaded.spec.pruning.recover_steps) == ("distill", 5)
    assert same(loaded, twice)
    again = compress.recalibrate(loaded, photographs)
    assert again.spec.pruning is not None
    assert (again.spec.pruning.recover, again.spec.pruning.recover_steps) == ("distill+bn", 5)


def test_a_teacher_that_is_not_the_parent_is_refused(
    slim: Backbone, dense: Backbone, photographs: list[Tensor]
) -> None:
    others = {
        "this resnet18 is dense": (dense, dense),
        "the teacher is pruned": (slim, slim),
        "is a resnet34 and the slim backbone a resnet18": (slim, compress.create_backbone("resnet34", weights="none")),
        r"weights \(none \(seed 3\)\) are not": (slim, compress.create_backbone("resnet18", weights="none", seed=3)),
        "the teacher ends at layer2": (slim, compress.create_backbone("resnet18", weights="none", taps=["layer2"])),
    }
    for message, (student, teacher) in others.items():
        with pytest.raises(CompressError, match=message):
            compress.distill(student, teacher, photographs, steps=1, recipe=SMALL)


def test_batch_norm_statistics_are_those_of_the_images(slim: Backbone, photographs: list[Tensor]) -> None:
    """The first batch norm's mean is the mean of what the first convolution gives, over all images."""
    images = photographs[:16]
    result = compress.recalibrate(slim, images)
    views = torch.stack([compress.augment.centre_view(image) for image in images]).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (slim.mean, slim.std))
    first, norm = (result.trunk.get_submodule(name) for name in ("conv1", "bn1"))
    with torch.no_grad():
        expected = first((views - mean) / std)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert torch.allclose(norm.running_mean, expected.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, expected.var((0, 2, 3)), rtol=1e-3)
    assert norm.momentum == 0.1  # as the architecture has it
    assert result.spec.pruning is not None
    assert result.spec.pruning.recover == "bn"
    for name, parameter in result.named_parameters():
        assert torch.equal(parameter, slim.get_parameter(name))


def test_a_network_without_batch_norm_cannot_be_recalibrated(photographs: list[Tensor]) -> None:
    net = compress.prune(compress.create_backbone("convnext_atto", weights="none"), ratio=0.25)
    with pytest.raises(CompressError, match="convnext_atto has no batch norm to recalibrate"):
        compress.recalibrate(net, photographs)


def test_finetuning_learns_the_classes(slim: Backbone, labelled: list[tuple[Tensor, int]]) -> None:
    seen: list[tuple[int, float]] = []
    result = compress.finetune(slim, labelled, steps=20, recipe=SMALL, report=held_out_losses(seen))
    assert min(loss for _, loss in seen) < 0.35  # ln 2 = 0.69 is chance
    assert result.spec.pruning is not None
    assert (result.spec.pruning.recover, result.spec.pruning.recover_steps) == ("finetune", 20)
    assert result.feature_info.channels() == slim.feature_info.channels()
    assert same(compress.finetune(slim, labelled, steps=20, recipe=SMALL), result)


def test_finetuning_with_a_teacher_stays_nearer_to_it(
    slim: Backbone, dense: Backbone, labelled: list[tuple[Tensor, int]], photographs: list[Tensor]
) -> None:
    recipe = replace(SMALL, optimizer="adamw")
    alone = compress.finetune(slim, labelled, steps=15, recipe=recipe)
    taught = compress.finetune(slim, labelled, teacher=dense, steps=15, recipe=recipe)
    assert distance_of(taught, dense, photographs) < distance_of(alone, dense, photographs)


def test_finetuning_without_classes_is_refused(
    slim: Backbone, photographs: list[Tensor], labelled: list[tuple[Tensor, int]]
) -> None:
    with pytest.raises(CompressError, match=r"has no label: .* or distill, which needs none"):
        compress.finetune(slim, photographs, steps=1, recipe=SMALL)  # type: ignore[arg-type]
    with pytest.raises(CompressError, match="all images have one label"):
        compress.finetune(slim, [(image, 0) for image, _ in labelled], steps=1, recipe=SMALL)

    class Listed(list[tuple[Tensor, int]]):
        classes = ("a", "b")

    with pytest.raises(CompressError, match="label 7 of 2 classes"):
        compress.finetune(slim, Listed((image, 7) for image, _ in labelled), steps=1, recipe=SMALL)


def test_reinitialised_weights_are_fresh_and_the_structure_stays(slim: Backbone) -> None:
    fresh = compress.reinitialise(slim, seed=3)
    reference = compress.create_backbone("resnet18", weights="none", seed=3)
    assert fresh.feature_info.channels() == slim.feature_info.channels()
    own, drawn = fresh.trunk.get_parameter("conv1.weight"), reference.trunk.get_parameter("conv1.weight")
    assert torch.equal(own, drawn[: len(own)])
    assert float(fresh.trunk.get_buffer("bn1.running_mean").abs().sum()) == 0
    assert not torch.equal(own, compress.reinitialise(slim, seed=4).trunk.get_parameter("conv1.weight"))
    assert fresh.spec.pruning is not None
    assert slim.spec.pruning is not None
    assert fresh.spec.pruning == dataclasses.replace(slim.spec.pruning, recover="reinit", recover_steps=0)


def test_the_control_gets_the_same_recovery(slim: Backbone, dense: Backbone, photographs: list[Tensor]) -> None:
    result = compress.distill(compress.reinitialise(slim), dense, photographs, steps=2, recipe=SMALL)
    assert result.spec.pruning is not None
    assert result.spec.pruning.recover == "reinit+distill"


@pytest.mark.parametrize("name", RECOVERIES)
def test_every_recovery_runs_and_names_itself(
    name: str, slim: Backbone, dense: Backbone, photographs: list[Tensor], labelled: list[tuple[Tensor, int]]
) -> None:
    recovery = RECOVERIES[name]
    recipe = dataclasses.replace(recovery.recipe, batch=4, crop=32)
    run = Run(min(2, recovery.steps), recipe)
    result = recovery.recover(slim, dense, labelled if recovery.labelled else photographs, run)
    assert result.spec.pruning is not None
    assert result.spec.pruning.recover == name
    assert result.spec.pruning.recover_steps == run.steps
    assert not same(result, slim)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_does_not_matter(
    mode: type[torch.no_grad],
    slim: Backbone,
    dense: Backbone,
    photographs: list[Tensor],
    labelled: list[tuple[Tensor, int]],
) -> None:
    """The same weights come out, and can be trained on; so can a classifier that was made in that mode."""

    recipe = replace(SMALL, holdout=0.0)

    def recovered() -> list[nn.Module]:
        classifier = compress.as_classifier(slim, classes=2)
        return [
            compress.distill(slim, dense, photographs, steps=1, recipe=recipe),
            compress.finetune(slim, labelled, teacher=dense, steps=1, recipe=recipe),
            compress.train_classifier(classifier, labelled, steps=1, recipe=recipe),
            classifier,
        ]

    with mode():
        within = recovered()
    for network, outside in zip(within, recovered(), strict=True):
        assert same(network, outside)
        maps = network(torch.zeros(1, 3, 64, 64))
        torch.cat([each.flatten() for each in maps]).sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("with_labels", [False, True])
def test_a_sparse_phase_silences_what_its_penalty_presses_down(
    with_labels: bool, dense: Backbone, photographs: list[Tensor], labelled: list[tuple[Tensor, int]]
) -> None:
    """Half of one group's batch-norm scales are penalised, the others are left alone."""
    groups, _ = channel_groups(dense)
    pressed = next(group for group in groups if group.root == "layer1.0.conv1")
    before = tensors(dense)
    seen: list[float] = []

    def make_penalty(own: list[compress.graph.ChannelGroup]) -> compress.importance.Penalty:
        group = next(group for group in own if group.root == pressed.root)
        ((_, norm),) = group.norms()
        assert norm is not dense.trunk.get_submodule("layer1.0.bn1")

        def penalty(progress: float) -> Tensor:
            seen.append(progress)
            return norm.weight[:32].abs().sum()

        return penalty

    images: list[Tensor] | list[tuple[Tensor, int]] = labelled if with_labels else photographs
    recipe = replace(SMALL, lr=2e-2)
    sparse = train_sparse(
        dense,
        groups,
        make_penalty,  # type: ignore[arg-type]
        images,
        name="half",
        steps=60,
        labelled=with_labels,
        recipe=recipe,
    )
    scales = sparse.trunk.get_parameter("layer1.0.bn1.weight").detach()
    assert float(scales[:32].abs().mean()) < 0.5 * float(scales[32:].abs().mean())
    assert seen[0] == 0.0
    assert max(seen) <= 1.0
    assert sparse.spec == dense.spec
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())


@pytest.mark.gpu
def test_distillation_on_cuda(slim: Backbone, dense: Backbone, photographs: list[Tensor]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    better = compress.distill(slim, dense, photographs, steps=30, recipe=SMALL, device="cuda")
    assert distance_of(better, dense, photographs) < 0.7 * distance_of(slim, dense, photographs)
    assert next(better.parameters()).device.type == "cpu"
