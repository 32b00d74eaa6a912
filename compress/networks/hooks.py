"""A network run with hooks on its modules: for what it does not return, such as the maps of most whole networks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn


def run_hooked(network: nn.Module, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    """What `network` gives for `x`, and the outputs of the modules `taps`, in the order in which they run."""
    maps: list[Tensor] = []
    with noting(network, taps, lambda tap, output: maps.append(output)):
        return network(x), maps


@contextlib.contextmanager
def noting(network: nn.Module, names: Iterable[str], note: Callable[[str, Any], None]) -> Iterator[None]:
    """While the block runs, `note` is told the name and the output of each module of `names` as it ends."""

    def telling(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda module, inputs, output: note(name, output)

    hooks = [network.get_submodule(name).register_forward_hook(telling(name)) for name in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
