"""Where networks come from: one file per factory (torchvision, timm, a user's constructor), all with the functions of
`Factory`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor, nn

from compress.networks.reaching import Download

State = dict[str, Tensor]


class Factory(Protocol):
    """What a factory module offers. `model` is the factory's own name of an architecture."""

    def build(self, model: str) -> nn.Module:
        """The whole classification network with fresh random weights."""

    def stages(self, model: str, network: nn.Module) -> list[str]:
        """Names of the modules that can be tapped, shallow first."""

    def truncate(self, model: str, network: nn.Module, taps: Sequence[str]) -> nn.Module:
        """The trunk: `network` up to its last tap, parameters under their own names. Takes `network` apart."""

    def run(self, trunk: nn.Module, x: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """Feature maps of shape (N, C_i, H_i, W_i), one per tap, shallow first."""

    def blocks(self, trunk: nn.Module) -> list[nn.Module]:
        """The trunk's own modules that run one after another: the stem, then each block. Empty if it is no chain."""

    def run_whole(self, model: str, network: nn.Module, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """Class scores of the whole network, and the maps that `run` gives for the same taps."""

    def classifiers(self, network: nn.Module) -> list[nn.Module]:
        """The layers whose outputs the network returns, such as its classes: these are never pruned."""


class Hub(Factory, Protocol):
    """A factory whose networks have official weights somewhere."""

    def cached_weights(self, model: str) -> Path | None:
        """The file of the official ImageNet weights if this machine has it already."""

    def open_download(self, model: str) -> Download:
        """The official ImageNet weights, ready to be sent. Raises OSError, within seconds, where they are not.

        `NoAnswerError` stands for a hub that is not to be reached, any other OSError for this model alone.
        """


def find_factory(name: str) -> Hub:
    """The factory `torchvision` or `timm`. The package is imported only now: most programs need one of them."""
    return cast(Hub, importlib.import_module(f"compress.networks.{name}_factory"))
