"""The registry of pruning methods: one file per method, one line here.

A method scores the channels of one group; channels with the smallest scores go first. Some read
more than weights (`reads`), and some train the network towards sparsity before the cut (`penalty`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from compress.graph import ChannelGroup
from compress.importance.batch_norm import batch_norm, batch_norm_penalty
from compress.importance.evidence import Evidence
from compress.importance.group_norm import group_norm, group_norm_penalty
from compress.importance.growing_reg import growing_reg, growing_reg_penalty
from compress.importance.layer_adaptive import layer_adaptive
from compress.importance.lcp import lcp
from compress.importance.magnitude import magnitude, magnitude_l2
from compress.importance.penalty import Penalty
from compress.importance.random import random
from compress.importance.taylor import taylor


@dataclass(frozen=True)
class Method:
    """A criterion and, for some, the sparse training that it wants before the cut.

    Attributes:
        score: `score(group, evidence)` gives a float tensor of shape (group.size,); least goes first.
        scope: over what channels are ranked unless the user says otherwise (see `compress.pruning.selection`).
        reads: what the evidence must hold: `weights` alone, `activations`, or `gradients`; the latter
            two are gathered over images.
        penalty: `penalty(groups, removals)` makes the term of the sparse phase from the groups in the network
            that is trained and, if the method `ranks_first`, the channels of each that are to go.
        ranks_first: the ranking from before the sparse phase decides, since that phase presses down the very channels
            that are to go. Otherwise the penalty is told of no removals, and the channels are ranked again after it.
    """

    score: Callable[[ChannelGroup, Evidence], Tensor]
    summary: str
    paper: str
    scope: str = "local"
    reads: str = "weights"
    penalty: Callable[[Sequence[ChannelGroup], Sequence[Sequence[int]]], Penalty] | None = None
    ranks_first: bool = False

    def shares_phase(self, cuts: int) -> bool:
        """Whether the end of one sparse phase serves every ratio, when the ratio is spread over that many `cuts`."""
        return self.penalty is not None and not self.ranks_first and cuts == 1


METHODS: dict[str, Method] = {
    "magnitude": Method(magnitude, "L1 norm of the filters that make a channel", "Li et al. 2017, arXiv 1608.08710"),
    "magnitude_l2": Method(magnitude_l2, "L2 norm of the same", "Li et al. 2017, arXiv 1608.08710"),
    "batch_norm": Method(
        batch_norm,
        "scale of the batch norms, after a phase that presses all scales down",
        "Liu et al. 2017, arXiv 1708.06519",
        penalty=batch_norm_penalty,
    ),
    "growing_reg": Method(
        growing_reg,
        "L2 norm of the filters, then a growing penalty on the channels that are to go",
        "Wang et al. 2021, arXiv 2012.09243",
        penalty=growing_reg_penalty,
        ranks_first=True,
    ),
    "layer_adaptive": Method(
        layer_adaptive,
        "LAMP: magnitudes made comparable over layers, ranked over the whole network",
        "Lee et al. 2021, arXiv 2010.07611",
        scope="global",
    ),
    "group_norm": Method(
        group_norm,
        "L2 norm of all parameters that go with a channel, after a phase that makes groups sparse",
        "Fang et al. 2023, arXiv 2301.12900",
        penalty=group_norm_penalty,
    ),
    "lcp": Method(
        lcp,
        "strength, variance and sparsity of the activations over unlabelled images; forward passes only",
        "after Xie et al. 2020, arXiv 1911.02237",
        reads="activations",
    ),
    "taylor": Method(
        taylor,
        "gradient times weight over unlabelled images: the reference for lcp",
        "Molchanov et al. 2019, arXiv 1906.10771",
        reads="gradients",
    ),
    "random": Method(random, "a seeded shuffle: the reference any method must beat", "-"),
}
"""The pruning methods by name."""

ALIASES = {"bn": "batch_norm"}

__all__ = ["ALIASES", "METHODS", "Evidence", "Method", "Penalty"]
