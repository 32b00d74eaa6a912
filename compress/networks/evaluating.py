"""A user's network in evaluation mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """For the block `network` is in evaluation mode; then each of its modules is in the mode that it was in.

    Batch norms in training mode learn from whatever passes, and drop-out draws: what is only to be measured must
    neither change the network nor depend on chance.
    """
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
