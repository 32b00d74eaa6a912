"""A whole network run with hooks on the modules that are tapped: for networks that cannot return their maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def run_hooked(network: nn.Module, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    """What `network` gives for `x`, and the outputs of the modules `taps`, in the order in which they run."""
    maps: list[Tensor] = []
    hooks = [
        network.get_submodule(tap).register_forward_hook(lambda module, inputs, output: maps.append(output))
        for tap in taps
    ]
    try:
        return network(x), maps
    finally:
        for hook in hooks:
            hook.remove()
