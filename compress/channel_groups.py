"""Groups of channels that can only be removed together, from Torch-Pruning's dependency graph (Fang 2023).

A residual sum ties the outputs of every layer that feeds it, a depthwise convolution follows its
input, a squeeze-excite gate follows the map it scales. One `ChannelGroup` holds all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.errors import CompressError


@dataclass(frozen=True)
class Member:
    """A layer of a group. `outputs` tells whether the group is its output channels or its input channels.

    `indices[i]` is the layer's own channel that the i-th entry of the group stands for, and
    `channels[i]` the channel of the group's root that it falls with.
    """

    name: str
    layer: nn.Module
    outputs: bool
    indices: Tensor
    channels: Tensor


@dataclass(frozen=True)
class ChannelGroup:
    """Channels 0 ... size-1 of the layer `root`, with every layer that must follow.

    `blocks` is the number of equal parts that must keep equally many channels (a grouped
    convolution's groups), 1 for most.
    """

    root: str
    size: int
    members: tuple[Member, ...]
    blocks: int

    def filters(self) -> Iterator[tuple[Member, Tensor]]:
        """Each convolution or linear layer whose outputs are this group, with its weight as (outputs, -1)."""
        for member in self.members:
            if member.outputs and isinstance(member.layer, nn.Conv2d | nn.Linear):
                yield member, member.layer.weight.detach().flatten(1)


class ChannelGraph:
    """The dependency graph of a classification network, and the cuts that it allows."""

    def __init__(self, network: nn.Module, classifier: nn.Module, size: int) -> None:
        self.network = network
        self._names = {module: name for name, module in network.named_modules()}
        # Tracing follows gradients, so every parameter must have them.
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parameters outside layers, which keep their shape here
            self._graph = tp.DependencyGraph().build_dependency(network, torch.zeros(1, 3, size, size))
        # get_all_groups: fresh list, because Torch-Pruning 1.6 shares mutable defaults between calls.
        self._groups = list(self._graph.get_all_groups(ignored_layers=[classifier]))

    def groups(self) -> list[ChannelGroup]:
        """All prunable groups, in Torch-Pruning's order."""
        return [self._describe(group) for group in self._groups]

    def remove(self, group: ChannelGroup, channels: list[int]) -> dict[str, list[int]]:
        """Cut `channels` of the group's root and all that follows; returns the removed outputs per layer.

        Raises:
            CompressError: an index is outside the group.
        """
        if any(not 0 <= channel < group.size for channel in channels):
            raise CompressError(f"channels {channels} of {group.root}: it has channels 0 to {group.size - 1}")
        root = self.network.get_submodule(group.root)
        cut = self._graph.get_pruning_group(root, self._graph.get_pruner_of_module(root).prune_out_channels, channels)
        removed: dict[str, list[int]] = {}
        for dependency, indices in cut:
            layer = dependency.target.module
            if isinstance(layer, nn.Conv2d | nn.Linear) and self._graph.is_out_channel_pruning_fn(dependency.handler):
                removed[self._names[layer]] = sorted(set(indices))
        cut.prune()
        return removed

    def _describe(self, group: tp.dependency.Group) -> ChannelGroup:
        root = group[0].dep.target.module
        members = []
        blocks = 1
        for item in group.items:
            layer = item.dep.target.module
            if layer not in self._names:
                continue  # an operation without parameters: a sum, an activation, a reshape
            outputs = self._graph.is_out_channel_pruning_fn(item.dep.handler)
            indices, channels = torch.tensor(item.idxs), torch.tensor(item.root_idxs)
            members.append(Member(self._names[layer], layer, outputs, indices, channels))
            if isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.out_channels:
                blocks = max(blocks, layer.groups)
        return ChannelGroup(self._names[root], len(group[0].idxs), tuple(members), blocks)
