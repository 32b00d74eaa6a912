"""The training loop that recovery and sparse phases share.

Muon or AdamW under a warm-up and a cosine; bfloat16 where the machine computes in it; held-out checks; checkpoints from
which a killed training goes on to the same weights, bit for bit on a CPU with the same number of threads. (On CUDA
some gradients are summed in no fixed order, so that weights agree to rounding.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import CompressError
from compress.files import require_writable
from compress.networks import State
from compress.precision import bfloat16_pays
from compress.progress import Track, quiet
from compress.training.checkpoint import read_checkpoint, write_checkpoint
from compress.training.optimizer import Optimizer
from compress.training.recipe import Recipe
from compress.training.training_set import TrainingSet

Loss = Callable[[Tensor, Tensor | None, float], Tensor]
"""Images (N, 3, S, S), labels (N,) or None, and the share of the steps done, in [0, 1], to a scalar with gradients."""

Report = Callable[[int, float, float | None], None]
"""Told after each step: steps done, the loss, and the held-out loss where it was just measured."""


@dataclass(frozen=True)
class Run:
    """One training: for how long, by which recipe, where, and who is told.

    Attributes:
        steps: at least 1; 0 is for a recovery that trains nothing.
        seed: of the split, the order, the crops and every layer that draws; at least 0.
        device: `auto` (CUDA if there is one), or torch's name of a device.
        checkpoint: a file that the state is kept in. If it is there, the training goes on from it. At the end it
            holds the finished training, so that the same call returns at once: delete it once the result is saved.
        report: told after each step.
    """

    steps: int
    recipe: Recipe = Recipe()  # noqa: RUF009 it is frozen
    seed: int = 0
    device: str = "auto"
    checkpoint: Path | None = None
    track: Track = quiet
    report: Report | None = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise CompressError(f"{self.steps} steps of training: give at least 1")
        if self.seed < 0:
            raise CompressError(f"seed {self.seed}: it must be at least 0")
        if self.checkpoint is not None:
            require_writable(self.checkpoint)
        find_device(self.device)

    def asked(self) -> dict[str, Any]:
        """What the result depends on, as JSON values."""
        device = find_device(self.device)
        precision = "bfloat16" if bfloat16_pays(device) else "float32"
        how = {"steps": self.steps, "seed": self.seed, "device": device.type, "precision": precision}
        return {**how, **dataclasses.asdict(self.recipe)}


@dataclass
class Outcome:
    """What came of a training.

    Attributes:
        steps: done so far.
        best_step: after which the returned state was.
        first, best: held-out loss before the training and of the returned state; None without held-out images.
        trained: lowest held-out loss after a step. Patience goes by it and not by `best`: a network that was trained
            before is first moved away from where it was, by the high rate, and comes nearer as the rate falls.
        stale: checks since that one, those in the first half of the steps not counted: a loss that stands still under a
            high rate tells nothing of where it ends.
    """

    steps: int = 0
    best_step: int = 0
    first: float | None = None
    best: float | None = None
    trained: float | None = None
    stale: int = 0


class DivergedError(CompressError):
    """The loss became infinite or no number. `state` is the student's last good state, after `step` steps."""

    def __init__(self, message: str, state: State, step: int) -> None:
        super().__init__(message)
        self.state, self.step = state, step


@torch.inference_mode(False)
def train(
    student: nn.Module, loss: Loss, images: TrainingSet, run: Run, *, request: Mapping[str, Any], title: str
) -> Outcome:
    """Train `student` in place; at the end it is in its best state, on the CPU, in evaluation mode.

    Gradients are taken whatever the caller's mode. But what was made within `torch.inference_mode` cannot be trained:
    make the student and the loss in `torch.inference_mode(False)`, as the verbs do.

    Args:
        loss: of the student, which is in training mode for a step and in evaluation mode for a check.
            What it needs besides must lie on `find_device(run.device)`.
        request: what else the result depends on (digests of networks), as JSON values.
        title: what the progress is called.

    Raises:
        DivergedError: the loss is not finite. A checkpoint stays as it was at the last check.
        CompressError: no steps, or the checkpoint is damaged, another request's, or cannot be written.
    """
    if run.steps < 1:
        raise CompressError(f"{run.steps} steps of training: at least 1 is needed")
    device = find_device(run.device)
    request = {**request, **run.asked(), "images": images.fingerprint()}
    session = _Session(student.float().to(device).to(memory_format=torch.channels_last), loss, images, run, device)
    with _own_generators(device), _least_momentum(student, run.recipe.least_momentum), ThreadPoolExecutor(1) as ahead:
        if run.checkpoint is None or not session.resume(run.checkpoint, request):
            session.check()
        done = session.outcome.steps
        upcoming = ahead.submit(images.batch, done)
        for step in run.track(range(done, run.steps), title, run.steps - done):
            if session.outcome.stale >= run.recipe.patience:
                break
            batch = upcoming.result()
            upcoming = ahead.submit(images.batch, step + 1)  # decoded and cropped while this step computes
            value = session.step(step, batch.images, batch.labels)
            held_out = None
            if session.outcome.steps % run.recipe.check_every == 0 or session.outcome.steps == run.steps:
                held_out = session.check()
                if run.checkpoint is not None:
                    session.keep(run.checkpoint, request)
            if run.report is not None:
                run.report(session.outcome.steps, value, held_out)
    session.student.load_state_dict(session.best)
    session.student.to("cpu").to(memory_format=torch.contiguous_format).eval()
    return session.outcome


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` takes CUDA where there is one.

    Raises:
        CompressError: this machine has no such device.
    """
    try:
        device = torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))
    except RuntimeError as error:
        raise CompressError(f"unknown device {name!r}: use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise CompressError(f"device {name!r} is not here: use auto or cpu")
    return device


class _Session:
    """A training under way: the student, its optimizer, and the best state so far."""

    def __init__(self, student: nn.Module, loss: Loss, images: TrainingSet, run: Run, device: torch.device) -> None:
        self.student, self.outcome = student, Outcome()
        self.best = _copy(student)
        self._loss, self._images, self._run, self._device = loss, images, run, device
        self._optimizer = Optimizer(student, run.recipe.optimizer, weight_decay=run.recipe.weight_decay)

    def step(self, step: int, images: Tensor, labels: Tensor | None) -> float:
        """One step of the optimizer; the loss before it."""
        torch.manual_seed(self._run.seed + step)  # for layers that draw, such as dropout
        self.student.train()
        if step >= (1 - self._run.recipe.frozen_norms) * self._run.steps:
            _freeze_norms(self.student)
        with self._precision():
            loss = self._loss(*self._moved(images, labels), step / self._run.steps)
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged(step)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(self._run.recipe.rate(step, self._run.steps))
        self.outcome.steps = step + 1
        return value

    @torch.no_grad()
    def check(self) -> float | None:
        """The held-out loss of the student as it is now, kept if it is the best so far."""
        self.student.eval()
        outcome, total, count = self.outcome, 0.0, 0
        for images, labels in self._images.held_out():
            with self._precision():
                loss = self._loss(*self._moved(images, labels), outcome.steps / self._run.steps)
            total, count = total + loss.item() * len(images), count + len(images)
        held_out = total / count if count else None
        finite = all(bool(tensor.isfinite().all()) for tensor in self.student.state_dict().values())
        if not finite or not math.isfinite(total):
            raise self._diverged(outcome.steps)
        if held_out is None or outcome.best is None or held_out < outcome.best:
            outcome.best, outcome.best_step = held_out, outcome.steps
            self.best = _copy(self.student)
        if outcome.steps == 0:
            outcome.first = held_out
        elif held_out is None or outcome.trained is None or held_out < outcome.trained:
            outcome.trained, outcome.stale = held_out, 0
        elif 2 * outcome.steps >= self._run.steps:
            outcome.stale += 1
        return held_out

    def keep(self, file: Path, request: Mapping[str, Any]) -> None:
        """Write all that the training needs to go on."""
        tensors = {f"student.{name}": tensor for name, tensor in self.student.state_dict().items()}
        tensors.update({f"best.{name}": tensor for name, tensor in self.best.items()})
        tensors.update({f"optimizer.{name}": tensor for name, tensor in self._optimizer.state().items()})
        write_checkpoint(file, request, dataclasses.asdict(self.outcome), tensors)

    def resume(self, file: Path, request: Mapping[str, Any]) -> bool:
        """Go back to what `keep` wrote; False if there is no such file."""
        found = read_checkpoint(file, request)
        if found is None:
            return False
        progress, tensors = found
        try:
            self.student.load_state_dict(_part(tensors, "best."))  # which also shows that they fit
            self.best = _copy(self.student)
            self.student.load_state_dict(_part(tensors, "student."))
            self.outcome = _outcome(progress, self._run.steps)
            self._optimizer.restore(_part(tensors, "optimizer."))
        except (RuntimeError, TypeError, ValueError) as error:
            raise CompressError(f"checkpoint {file} is damaged ({error}): delete it to begin anew") from error
        return True

    def _moved(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return images.to(self._device), None if labels is None else labels.to(self._device)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16_pays(self._device))

    def _diverged(self, step: int) -> DivergedError:
        good = {name: tensor.cpu().contiguous() for name, tensor in self.best.items()}
        return DivergedError(
            f"the loss is not finite at step {step} of {self._run.steps}: lower the learning rate "
            f"({self._run.recipe.lr:g}) in the recipe or, where it is fixed, give other weights or other images",
            good,
            self.outcome.best_step,
        )


@contextlib.contextmanager
def _own_generators(device: torch.device) -> Iterator[None]:
    """Layers draw as they like, and the caller's generators are left as they were."""
    cuda = [] if device.type == "cpu" else [torch.cuda.current_device() if device.index is None else device.index]
    # flags() switches cuDNN off unless it is told not to.
    with torch.random.fork_rng(devices=cuda), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        yield


@contextlib.contextmanager
def _least_momentum(network: nn.Module, least: float) -> Iterator[None]:
    """Batch norms follow at least so fast; those that take the mean over all (None) or hold what they have (0) stay."""
    slow = [norm for norm in _batch_norms(network) if norm.momentum is not None and 0 < norm.momentum < least]
    own = [norm.momentum for norm in slow]
    for norm in slow:
        norm.momentum = least
    try:
        yield
    finally:
        for norm, momentum in zip(slow, own, strict=True):
            norm.momentum = momentum


def _freeze_norms(network: nn.Module) -> None:
    for norm in _batch_norms(network):
        norm.eval()


def _batch_norms(network: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    return (layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))


def _copy(network: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _outcome(progress: dict[str, Any], steps: int) -> Outcome:
    """What `dataclasses.asdict` made `progress` of; TypeError or ValueError where it did not."""
    found = Outcome(**progress)
    counts, losses = (found.steps, found.best_step, found.stale), (found.first, found.best, found.trained)
    if not all(type(count) is int and count >= 0 for count in counts) or found.steps > steps:
        raise ValueError(f"its counts of steps are {counts}")
    if not all(loss is None or (type(loss) is float and math.isfinite(loss)) for loss in losses):
        raise ValueError(f"its losses are {losses}")
    return found


def _part(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
