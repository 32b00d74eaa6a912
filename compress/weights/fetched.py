"""Weights as they were read: what they are, where they came from, and whether they fit a network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import nn

from compress.errors import CompressError, some_of
from compress.networks import State


@dataclass(frozen=True)
class WeightsOrigin:
    """Where weights came from: a source in words, and the SHA-256 of what was read (None for random ones)."""

    source: str
    sha256: str | None


@dataclass(frozen=True)
class Fetched:
    """Weights as read; `state` is None for random ones."""

    source: str
    state: State | None
    sha256: str | None

    def origin(self, seed: int) -> WeightsOrigin:
        return WeightsOrigin(self.source if self.state is not None else f"none (seed {seed})", self.sha256)


def fit_to(trunk: nn.Module, fetched: Fetched) -> State:
    """The part of `fetched` that the trunk needs.

    A partial file that covers the stages up to the last tap is enough; what lies past it is left out.
    Batch-norm counters, which old files lack, are not needed.

    Raises:
        CompressError: tensors are missing or have other shapes; the message lists them.
    """
    state = fetched.state or {}
    wanted = trunk.state_dict()
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in state]
    if missing:
        raise CompressError(
            f"weights {fetched.source} lack {len(missing)} of {len(needed)} tensors up to the last tap: "
            f"{some_of(missing)}; the file has {some_of(sorted(state), 3)}: give one that has them, or tap earlier"
        )
    wrong = [
        f"{name} {list(state[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if wrong:
        raise CompressError(f"weights {fetched.source} are of another architecture: {some_of(wrong, 4)}")
    return {name: state.get(name, tensor) for name, tensor in wanted.items()}


def sha256_of_state(state: State) -> str:
    """SHA-256 over names and values of the tensors, whatever file they lie in."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
