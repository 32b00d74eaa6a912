"""What recoveries have in common: what they refuse, and the slim backbone with its new weights and record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch

from compress.backbone import Backbone, Pruning, assemble
from compress.errors import CompressError
from compress.networks import State
from compress.training import DivergedError, digest_of


class RecoveryError(CompressError):
    """A recovery that diverged. `backbone` is the last good state, recorded like a finished one."""

    def __init__(self, message: str, backbone: Backbone) -> None:
        super().__init__(message)
        self.backbone = backbone


def record_of(slim: Backbone) -> Pruning:
    """How `slim` was pruned.

    Raises:
        CompressError: it was not.
    """
    if slim.spec.pruning is None:
        raise CompressError(f"this {slim.spec.arch} is dense, so there is nothing to recover: prune it first")
    return slim.spec.pruning


def recovered(slim: Backbone, state: State, recover: str, steps: int) -> Backbone:
    """`slim` with the weights `state`, its record saying that `recover` was done, in `steps` steps."""
    before = record_of(slim)
    done = [] if before.recover == "none" else before.recover.split("+")
    if done[-1:] != [recover]:
        done.append(recover)
    pruning = replace(before, recover="+".join(done), recover_steps=before.recover_steps + steps)
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    return assemble(replace(slim.spec, pruning=pruning), state)


@contextlib.contextmanager
def keeping_last_good(slim: Backbone, recover: str, trunk: str) -> Iterator[None]:
    """Turn a diverged training into a `RecoveryError` with the last good backbone.

    `trunk` is the prefix that the trunk's tensors have in the trained network.
    """
    try:
        yield
    except DivergedError as error:
        state = {name.removeprefix(trunk): t for name, t in error.state.items() if name.startswith(trunk)}
        told = f"{error}; the last good state is that of step {error.step}"
        raise RecoveryError(told, recovered(slim, state, recover, error.step)) from error


def require_parent(slim: Backbone, teacher: Backbone) -> None:
    """Check that `teacher` is the dense network that `slim` was cut from.

    Raises:
        CompressError: it is pruned itself, another architecture, has other weights, or ends too early.
    """
    record_of(slim)
    if teacher.spec.pruning is not None:
        raise CompressError("the teacher is pruned: give the dense backbone that the slim one was cut from")
    if teacher.spec.arch != slim.spec.arch:
        raise CompressError(f"the teacher is a {teacher.spec.arch} and the slim backbone a {slim.spec.arch}: give one")
    own, other = slim.spec.weights, teacher.spec.weights
    same = own.sha256 == other.sha256 if own.sha256 and other.sha256 else own == other
    if not same:
        raise CompressError(
            f"the teacher's weights ({other.source}) are not those that were pruned ({own.source}): give these"
        )
    missing = [stage for stage in slim.stages if stage not in teacher.stages]
    if missing:
        raise CompressError(
            f"the teacher ends at {teacher.stages[-1]}, and the slim backbone at {slim.stages[-1]}: "
            f"give a teacher with taps up to {slim.stages[-1]}"
        )


def float_copy(backbone: Backbone) -> Backbone:
    """A copy of `backbone` to train, in float32, all parameters with gradients."""
    state = {name: tensor.detach().cpu() for name, tensor in backbone.trunk.state_dict().items()}
    twin = assemble(backbone.spec, state).float()
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    return twin


def digests(**networks: torch.nn.Module | None) -> dict[str, str | None]:
    """SHA-256 of each network's tensors, for the request of a checkpoint."""
    return {name: None if net is None else digest_of(net.state_dict()) for name, net in networks.items()}
