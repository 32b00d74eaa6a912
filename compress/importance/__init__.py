"""The registry of pruning methods: one file per method, one line here.

A method scores the channels of one group; channels with the smallest scores go first. Some read
more than weights (`reads`), and some train the network towards sparsity before the cut (`penalty`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from compress.channel_groups import ChannelGroup
from compress.importance.evidence import Evidence
from compress.importance.magnitude import magnitude
from compress.importance.random import random

Penalty = Callable[[float], Tensor]
"""The term that a sparse phase adds to its loss: progress of the phase in [0, 1] to a scalar with gradients."""


@dataclass(frozen=True)
class Method:
    """A criterion and, for some, the sparse training that it wants before the cut.

    Attributes:
        score: `score(group, evidence)` gives a float tensor of shape (group.size,); least goes first.
        scope: over what channels are ranked unless the user says otherwise (see `compress.selection`).
        reads: what the evidence must hold: `weights` alone, `activations`, or `gradients`; the latter
            two are gathered over images.
        penalty: `penalty(groups, removals)` makes the term of the sparse phase from the groups in the network
            that is trained and the channels of each that are to go.
    """

    score: Callable[[ChannelGroup, Evidence], Tensor]
    summary: str
    paper: str
    scope: str = "local"
    reads: str = "weights"
    penalty: Callable[[Sequence[ChannelGroup], Sequence[Sequence[int]]], Penalty] | None = None

    @property
    def needs_images(self) -> bool:
        """Whether the method as published looks at images."""
        return self.reads != "weights" or self.penalty is not None


METHODS: dict[str, Method] = {
    "magnitude": Method(magnitude, "L1 norm of the filters that make a channel", "Li et al. 2017, arXiv 1608.08710"),
    "random": Method(random, "a seeded shuffle: the reference any method must beat", "-"),
}

ALIASES = {"bn": "batch_norm"}

__all__ = ["ALIASES", "METHODS", "Evidence", "Method", "Penalty"]
