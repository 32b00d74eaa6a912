"""The training loop: batches that follow from the step, exact continuation, refusals, and the best state kept."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import same
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compress import CompressError, Recipe
from compress.augment import centre_view, industrial, random_crop
from compress.training import DivergedError, Outcome, Report, Run, TrainingSet, find_device, train
from compress.training.checkpoint import read_checkpoint, write_checkpoint

AREA = (0.3, 1.0)
SMALL = Recipe(lr=1e-2, batch=4, crop=32, warm_up=2, check_every=4, patience=50)


def photographs(count: int = 20, seed: int = 0) -> list[Tensor]:
    """Images of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(0, 256, (3, 40 + index % 3, 50), dtype=torch.uint8, generator=generator) for index in range(count)
    ]


def training_set(images: Sequence[object], *, recipe: Recipe = SMALL, labelled: bool = False) -> TrainingSet:
    return TrainingSet(
        images,
        labelled=labelled,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        batch=recipe.batch,
        crop=recipe.crop,
        area=recipe.area,
        holdout=recipe.holdout,
        seed=0,
    )


class Brightness(nn.Module):
    """Learns the mean brightness of an image; dropout draws random numbers, batch norm keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(8, 1, 3, padding=1)
        )
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)

    def loss(self, images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        predicted: Tensor = self.body(images).float().mean((1, 2, 3))
        return (predicted - images.mean((1, 2, 3))).square().mean()


def brightness(run: Run, images: list[Tensor] | None = None) -> tuple[Brightness, Outcome]:
    student = Brightness()
    data = training_set(images or photographs(), recipe=run.recipe)
    return student, train(student, student.loss, data, run, request={"verb": "test"}, title="testing")


def killed_after(step: int) -> Report:
    """A report that ends the training as a kill would."""

    def report(done: int, loss: float, held_out: float | None) -> None:
        if done == step:
            raise KeyboardInterrupt

    return report


def test_a_crop_covers_what_its_box_holds() -> None:
    """A crop of a horizontal ramp is a ramp between two of its values, mirrored or not."""
    ramp = torch.arange(200, dtype=torch.uint8).expand(3, 100, 200).contiguous()
    for seed in range(20):
        crop = random_crop(ramp, 32, AREA, np.random.default_rng(seed))
        assert crop.shape == (3, 32, 32)
        assert crop.dtype == torch.uint8
        row = crop[0, 0].int()
        row = row if row[-1] > row[0] else row.flip(0)
        assert bool((row.diff() >= 0).all())
        # Between a fifth of the area at 3/4 and the whole height at 4/3: 63 <= width <= 134.
        assert 55 <= int(row[-1] - row[0]) <= 134


def test_crops_are_mirrored_half_of_the_time() -> None:
    ramp = torch.arange(200, dtype=torch.uint8).expand(3, 100, 200).contiguous()
    rng = np.random.default_rng(0)
    mirrored = sum(bool((crop := random_crop(ramp, 8, AREA, rng))[0, 0, 0] > crop[0, 0, -1]) for _ in range(200))
    assert 70 < mirrored < 130


def test_a_very_long_image_is_cropped_too() -> None:
    assert random_crop(torch.zeros(3, 4, 900, dtype=torch.uint8), 32, AREA, np.random.default_rng(0)).shape == (
        3,
        32,
        32,
    )


def test_the_centre_view_is_what_detectors_see() -> None:
    """Of an image of 256 x 256, nothing is resized and 16 pixels fall away on every side."""
    image = torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(centre_view(image), image[:, 16:240, 16:240])


def test_a_batch_follows_from_its_step_alone() -> None:
    one, other = training_set(photographs()), training_set(photographs())
    for step in range(5):
        one.batch(step)
    assert torch.equal(one.batch(5).images, other.batch(5).images)
    assert not torch.equal(one.batch(5).images, one.batch(6).images)


def test_every_training_image_is_seen_once_an_epoch_and_no_held_out_one() -> None:
    grey = [(torch.full((3, 40, 40), value, dtype=torch.uint8), value) for value in range(20)]
    data = training_set(grey, labelled=True)
    labels = [batch.labels for batch in data.held_out()]
    held = {int(label) for part in labels if part is not None for label in part}
    assert len(held) == 8
    for epoch in range(3):
        seen = [data.batch(3 * epoch + step).labels for step in range(3)]
        assert {int(label) for part in seen if part is not None for label in part} == set(range(20)) - held


def test_images_are_normalised() -> None:
    white = training_set([torch.full((3, 40, 40), 255, dtype=torch.uint8)] * 20)
    assert torch.allclose(next(white.held_out()).images, torch.full((4, 3, 224, 224), 2.0))  # (1 - 0.5) / 0.25
    batch = white.batch(0).images
    assert batch.shape == (4, 3, 32, 32)
    assert batch.min() >= -2  # crops are varied in light, but stay images
    assert batch.max() <= 2


def test_crops_are_made_grey_flat_and_blurred_now_and_then() -> None:
    photograph = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = [industrial(photograph, np.random.default_rng(seed)) for seed in range(300)]
    assert all(crop.dtype == torch.uint8 and crop.shape == (3, 48, 48) for crop in drawn)
    assert torch.equal(drawn[7], industrial(photograph, np.random.default_rng(7)))
    grey = sum(bool((crop[0] == crop[1]).all() and (crop[1] == crop[2]).all()) for crop in drawn) / len(drawn)
    assert grey == pytest.approx(0.4, abs=0.1)
    rough = photograph.float().diff(dim=-1).abs().mean()
    smooth = sum(bool(crop.float().diff(dim=-1).abs().mean() < 0.3 * rough) for crop in drawn) / len(drawn)
    assert 0.3 < smooth < 0.8  # blurred, or in flat light
    assert any(torch.equal(crop, photograph) for crop in drawn)


@pytest.mark.parametrize(
    ("images", "labelled", "message"),
    [
        (DataLoader(photographs(20)), False, "pass loader.dataset"),  # type: ignore[arg-type]
        (iter(photographs(20)), False, "pass a list, or a map-style dataset"),
        ([], False, "no images given"),
        (photographs(11), False, "11 images are too few to train on: 12 are needed"),
        ([torch.zeros(3, 40, 40)] * 20, False, r"torch.float32 \(3, 40, 40\): give uint8 RGB"),
        ([torch.zeros(1, 40, 40, dtype=torch.uint8)] * 20, False, r"\(1, 40, 40\): give uint8 RGB"),
        (["a.png"] * 20, False, "image 0 is str"),
        (photographs(20), True, "has no label: give pairs .* or distill"),
        ([(photographs(1)[0], 0)] * 20, False, "none are needed: give the images alone"),
        ([(photographs(1)[0], -1)] * 20, True, "numbered from 0"),
        ([(photographs(1)[0], "cat")] * 20, True, r"image \d+ has the label 'cat': give its class as a whole number"),
        ([(photographs(1)[0], None)] * 20, True, r"image \d+ has the label None: give its class as a whole number"),
        ([(photographs(1)[0], 1.7)] * 20, True, "the label 1.7: give its class as a whole number, from 0"),
    ],
)
def test_images_of_a_wrong_kind_are_refused(images: Sequence[object], labelled: bool, message: str) -> None:
    with pytest.raises(CompressError, match=message):
        training_set(images, labelled=labelled)


def test_classes_are_counted_or_listed() -> None:
    pairs = [(image, index % 3) for index, image in enumerate(photographs())]
    assert training_set(pairs, labelled=True).classes() == 3
    kinds: list[Callable[[int], object]] = [float, np.int64, np.float32, torch.tensor]  # as datasets have them
    for kind in kinds:
        assert training_set([(image, kind(label)) for image, label in pairs], labelled=True).classes() == 3

    class Listed(list[tuple[Tensor, int]]):
        classes = ("a", "b", "c", "d")

    assert training_set(Listed(pairs), labelled=True).classes() == 4
    assert training_set([(image, 5 * (index % 2)) for image, index in pairs], labelled=True).classes() == 6
    for label in (0, 5):
        with pytest.raises(CompressError, match="2 classes are needed"):
            training_set([(image, label) for image in photographs()], labelled=True).classes()


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe(lr=2.0, warm_up=10)
    rates = [recipe.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[50] == pytest.approx(1.0)  # the middle of the cosine
    assert max(rates) == rates[9] or max(rates) == rates[10]
    assert rates[99] < 0.001
    assert Recipe(lr=2.0, warm_up=0).rate(0, 10) == 2.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "sgd"),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("batch", 1),
        ("crop", 16),
        ("holdout", 1.0),
        ("patience", 0),
        ("area", (0.5, 0.2)),
        ("frozen_norms", 1.5),
        ("least_momentum", -0.1),
    ],
)
def test_a_recipe_outside_its_limits_is_refused(name: str, value: object) -> None:
    with pytest.raises(CompressError, match=re.escape(f"{name} {value}")):
        Recipe(**{name: value})  # type: ignore[arg-type]


def test_a_run_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="at least 1"):
        brightness(Run(0, SMALL))
    with pytest.raises(CompressError, match="seed -1"):
        Run(1, SMALL, seed=-1)
    with pytest.raises(CompressError, match="unknown device 'tpu9x'"):
        Run(1, SMALL, device="tpu9x")
    with pytest.raises(CompressError, match="does not exist"):
        Run(1, SMALL, checkpoint=tmp_path / "missing" / "state.safetensors")


def test_training_learns_and_returns_the_best_state() -> None:
    seen: dict[int, float] = {}
    student, outcome = brightness(Run(40, SMALL, report=lambda done, loss, held: seen.update({done: held or 0.0})))
    assert outcome.first is not None
    assert outcome.best is not None
    assert outcome.best < 0.5 * outcome.first
    checks = {step: held for step, held in seen.items() if held}
    assert list(checks) == list(range(4, 41, 4))
    assert outcome.best == min([*checks.values(), outcome.first])
    assert not student.training
    assert all(tensor.dtype != torch.bfloat16 for tensor in student.state_dict().values())


def test_patience_ends_the_training_and_the_best_state_is_returned() -> None:
    """A loss that rises with every step: the state before the first one is the best."""
    student, recipe = Brightness(), Recipe(lr=1e-2, batch=4, crop=32, check_every=2, patience=3)
    before = Brightness()
    steps = 0

    def worse(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        return student.loss(images, labels, progress) * 0 + progress

    def report(done: int, loss: float, held_out: float | None) -> None:
        nonlocal steps
        steps = done

    outcome = train(student, worse, training_set(photographs()), Run(100, recipe, report=report), request={}, title="")
    # Checks from the half of the steps on count: those after 50, 52 and 54.
    assert (steps, outcome.steps, outcome.best_step, outcome.stale) == (54, 54, 0, 3)
    assert same(student, before)


def test_patience_waits_for_a_training_that_begins_near_the_end_of_another() -> None:
    """Its high rate spoils what it finds, ever more up to the half; as it falls, so does the loss."""
    student, recipe = Brightness(), Recipe(lr=1e-2, batch=4, crop=32, check_every=2, patience=3)

    def spoilt_then_better(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        now = 0.2 if progress == 0 else 1 + progress if progress < 0.5 else 2.1 - 2 * progress
        return student.loss(images, labels, progress) * 0 + now

    data = training_set(photographs())
    outcome = train(student, spoilt_then_better, data, Run(20, recipe), request={}, title="")
    assert (outcome.steps, outcome.best_step) == (20, 20)
    assert (outcome.first, outcome.best) == (pytest.approx(0.2), pytest.approx(0.1))


def test_a_killed_training_ends_by_patience_where_an_unbroken_one_does(tmp_path: Path) -> None:
    recipe = Recipe(lr=1e-2, batch=4, crop=32, check_every=2, patience=3)

    def ended(run: Run) -> Outcome:
        student = Brightness()

        def worse(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
            return student.loss(images, labels, progress) * 0 + progress

        return train(student, worse, training_set(photographs()), run, request={}, title="")

    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        ended(Run(20, recipe, checkpoint=file, report=killed_after(13)))
    continued = ended(Run(20, recipe, checkpoint=file))
    assert (continued.stale, continued.steps) == (3, 14)
    assert continued == ended(Run(20, recipe))


def test_norms_are_frozen_for_the_last_share_of_the_steps() -> None:
    """In training mode a batch norm counts its batches; frozen, it normalises by what it has, and still learns."""
    recipe = Recipe(lr=1e-2, batch=4, crop=32, warm_up=2, holdout=0.0, frozen_norms=0.4)
    frozen: list[bool] = []
    student = Brightness()
    norm = student.body[1]
    assert isinstance(norm, nn.BatchNorm2d)

    def loss(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        frozen.append(not norm.training)
        assert student.body[3].training  # the dropout goes on drawing
        return student.loss(images, labels, progress)

    train(student, loss, training_set(photographs(), recipe=recipe), Run(10, recipe), request={}, title="")
    assert frozen == [False] * 6 + [True] * 4
    assert norm.num_batches_tracked == 6


@pytest.mark.parametrize(("own", "while_training"), [(0.01, 0.1), (0.3, 0.3), (0.0, 0.0), (None, None)])
def test_running_statistics_do_not_lag_in_a_short_training(own: float | None, while_training: float | None) -> None:
    """MobileNetV3's momentum of 0.01 has half of what it began with left after 70 steps."""
    recipe = Recipe(lr=1e-2, batch=4, crop=32, warm_up=2, holdout=0.0)
    student, seen = Brightness(), []
    norm = student.body[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.momentum = own

    def loss(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        seen.append(norm.momentum)
        return student.loss(images, labels, progress)

    train(student, loss, training_set(photographs(), recipe=recipe), Run(2, recipe), request={}, title="")
    assert seen == [while_training] * 2
    assert norm.momentum == own


def test_without_held_out_images_the_last_state_counts() -> None:
    recipe = Recipe(lr=1e-2, batch=4, crop=32, warm_up=2, check_every=4, holdout=0.0)
    _, outcome = brightness(Run(10, recipe))
    assert (outcome.first, outcome.best, outcome.best_step) == (None, None, 10)


@pytest.mark.parametrize("step", [3, 4, 9, 12])
def test_a_killed_training_goes_on_to_the_same_weights(step: int, tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    unbroken, outcome = brightness(Run(12, SMALL))
    with pytest.raises(KeyboardInterrupt):
        brightness(Run(12, SMALL, checkpoint=file, report=killed_after(step)))
    assert file.exists() == (step >= 4)
    steps: list[int] = []
    continued, again = brightness(Run(12, SMALL, checkpoint=file, report=lambda done, loss, held: steps.append(done)))
    assert steps == list(range(step // 4 * 4 + 1, 13))
    assert same(continued, unbroken)
    assert again == outcome
    finished, _ = brightness(Run(12, SMALL, checkpoint=file, report=killed_after(1)))  # does nothing more
    assert same(finished, unbroken)


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    assert same(brightness(Run(6, SMALL))[0], brightness(Run(6, SMALL))[0])
    assert not same(brightness(Run(6, SMALL))[0], brightness(Run(6, SMALL, seed=1))[0])


def test_a_checkpoint_of_another_request_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    brightness(Run(4, SMALL, checkpoint=file))
    before = file.read_bytes()
    with pytest.raises(CompressError, match=r"another request .*steps 4, not 8.*delete it or name another file"):
        brightness(Run(8, SMALL, checkpoint=file))
    with pytest.raises(CompressError, match=r"another request .*images"):
        brightness(Run(4, SMALL, checkpoint=file), photographs(20, seed=9))
    assert file.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    brightness(Run(4, SMALL, checkpoint=file))
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CompressError, match=r"is damaged .*: delete it to begin anew"):
        brightness(Run(4, SMALL, checkpoint=file))
    write_checkpoint(file, {}, {}, {"a": torch.zeros(1)})
    assert read_checkpoint(file, {}) is not None
    with pytest.raises(CompressError, match="another request"):
        read_checkpoint(file, {"steps": 1})
    assert read_checkpoint(tmp_path / "none", {}) is None


def test_a_loss_that_is_no_number_stops_the_training_and_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    good, _ = brightness(Run(12, SMALL, checkpoint=file, report=lambda done, loss, held: None))
    file.unlink()
    student, run = Brightness(), Run(12, SMALL, checkpoint=file)

    def breaks(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        return student.loss(images, labels, progress) * (float("nan") if progress >= 9 / 12 else 1.0)

    with pytest.raises(
        DivergedError, match=r"not finite at step 9 of 12: lower the learning rate \(0.01\) .*or other images$"
    ) as caught:
        train(student, breaks, training_set(photographs()), run, request={"verb": "test"}, title="")
    assert caught.value.step in (4, 8)
    assert all(bool(tensor.isfinite().all()) for tensor in caught.value.state.values())
    continued, _ = brightness(Run(12, SMALL, checkpoint=file))  # the checkpoint is as it was at step 8
    assert same(continued, good)


def test_weights_that_are_no_numbers_are_never_kept() -> None:
    """The loss is finite at the last step, and its gradient is not."""
    student = Brightness()

    def steep(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        return student.loss(images, labels, progress) + (student.body[0].weight[0, 0, 0, 0] * 0).sqrt()

    with pytest.raises(DivergedError) as caught:
        train(student, steep, training_set(photographs()), Run(4, SMALL), request={}, title="")
    assert caught.value.step == 0
    assert all(bool(tensor.isfinite().all()) for tensor in caught.value.state.values())


def test_the_callers_generators_stay_as_they_were() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 the caller's global generator is what is looked at
    expected, numbers = torch.rand(3), np.random.random(3)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    student = Brightness()
    torch.manual_seed(5)
    train(student, student.loss, training_set(photographs()), Run(4, SMALL), request={}, title="")
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(np.random.random(3), numbers)  # noqa: NPY002


def test_cudnn_stays_on_and_picks_its_ways_without_trying() -> None:
    student, seen = Brightness(), set()

    def loss(images: Tensor, labels: Tensor | None, progress: float) -> Tensor:
        cudnn = torch.backends.cudnn
        seen.add((cudnn.enabled, cudnn.deterministic, cudnn.benchmark))
        return student.loss(images, labels, progress)

    train(student, loss, training_set(photographs()), Run(2, SMALL), request={}, title="")
    assert seen == {(True, True, False)}


def test_the_device_is_found() -> None:
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(CompressError, match="'meta' is not here"):
        find_device("meta")


@pytest.mark.gpu
def test_training_runs_on_cuda_and_comes_back() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    student, outcome = brightness(Run(40, SMALL, device="cuda"))
    assert {tensor.device.type for tensor in student.state_dict().values()} == {"cpu"}
    assert outcome.first is not None
    assert outcome.best is not None
    assert outcome.best < 0.5 * outcome.first


def _kept(tmp_path: Path) -> tuple[Path, dict[str, str], dict[str, Tensor]]:
    """A checkpoint after 4 of 8 steps: the file, its header and its tensors."""
    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        brightness(Run(8, SMALL, checkpoint=file, report=killed_after(5)))
    with safe_open(file, "pt") as opened:
        return file, opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("progress", '{"steps": "4"}'),
        ("progress", '{"steps": 400}'),
        ("progress", '{"steps": 4, "best": NaN}'),
        ("progress", '{"surprise": 1}'),
        ("progress", "[]"),
        ("request", "7"),
        ("request", "[" * 100_000),
    ],
)
def test_a_checkpoint_with_an_odd_header_is_refused(tmp_path: Path, part: str, text: str) -> None:
    file, header, tensors = _kept(tmp_path)
    save_file(tensors, file, {**header, part: text})
    with pytest.raises(CompressError, match=r"is damaged .*: delete it to begin anew"):
        brightness(Run(8, SMALL, checkpoint=file))


@pytest.mark.parametrize(
    "edit",
    [
        lambda tensors: tensors.pop("best.body.0.weight"),
        lambda tensors: tensors.pop(next(name for name in tensors if name.endswith(".exp_avg"))),
        lambda tensors: tensors.update({"optimizer.0.surprise": torch.zeros(1)}),
        lambda tensors: tensors.update({name: torch.zeros(3, 3) for name in tensors if name.endswith(".exp_avg")}),
        lambda tensors: tensors.update({"student.body.0.weight": torch.zeros(3)}),
    ],
)
def test_a_checkpoint_whose_tensors_do_not_fit_is_refused(tmp_path: Path, edit: Callable[[Any], Any]) -> None:
    file, header, tensors = _kept(tmp_path)
    edit(tensors)
    save_file(tensors, file, header)
    with pytest.raises(CompressError, match=r"is damaged .*: delete it to begin anew"):
        brightness(Run(8, SMALL, checkpoint=file))


def test_a_pipe_is_no_checkpoint_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "state")
    with pytest.raises(CompressError, match="is a pipe: name a file"):
        read_checkpoint(tmp_path / "state", {})
