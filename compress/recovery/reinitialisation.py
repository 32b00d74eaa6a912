"""The control of the lottery-ticket question: the pruned structure with fresh weights (Frankle 2019; Liu 2019)."""

from __future__ import annotations

from dataclasses import replace

from compress.backbone import Backbone, assemble, dense_parent
from compress.errors import CompressError
from compress.recovery.record import record_of


def reinitialise(slim: Backbone, seed: int = 0) -> Backbone:
    """A new backbone of `slim`'s structure whose weights are drawn anew, as its architecture draws them.

    Each tensor is the leading block of the dense network's fresh one, so nothing of the parent's training is left
    but the choice of channels. What is recovered afterwards shows what the inherited weights were worth.

    Args:
        slim: a pruned backbone; a recovery that it had counts no more.

    Raises:
        CompressError: `slim` is dense, or a user's own network, whose constructor may give it trained weights.
    """
    if not slim.spec.is_registered:
        raise CompressError(
            f"{slim.spec.arch} is a network of your own, whose constructor may load trained weights, so it cannot be "
            "drawn anew: take a registered architecture"
        )
    pruning = replace(record_of(slim), recover="reinit", recover_steps=0)
    fresh = dense_parent(slim.spec, seed=seed).trunk.state_dict()
    shapes = {name: tensor.shape for name, tensor in slim.trunk.state_dict().items()}
    state = {name: fresh[name][tuple(map(slice, shape))].clone() for name, shape in shapes.items()}
    return assemble(replace(slim.spec, pruning=pruning), state)
