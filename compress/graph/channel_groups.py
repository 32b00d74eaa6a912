"""Groups of channels that can only be removed together, from Torch-Pruning's dependency graph (Fang 2023).

A residual sum ties the outputs of every layer that feeds it, a depthwise convolution follows its
input, a squeeze-excite gate follows the map it scales. One `ChannelGroup` holds all of them, and the
feature maps that its channels come out in.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.architectures import Architecture
from compress.errors import CompressError
from compress.graph.dependencies import dependent, together


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
class MapMember:
    """A stage whose feature map holds channels of a group, `indices` and `channels` as in `Member`."""

    stage: str
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
    maps: tuple[MapMember, ...] = ()

    def filters(self) -> Iterator[tuple[Member, Tensor]]:
        """Each convolution or linear layer whose outputs are this group, with its weight as (outputs, -1)."""
        for member in self.members:
            if member.outputs and isinstance(member.layer, nn.Conv2d | nn.Linear):
                yield member, member.layer.weight.flatten(1)

    def norms(self) -> Iterator[tuple[Member, nn.BatchNorm2d]]:
        """Each batch norm with a scale and a shift whose channels are this group."""
        for member in self.members:
            if isinstance(member.layer, nn.BatchNorm2d) and member.layer.affine:
                yield member, member.layer

    def cut(self, channels: Iterable[int], *, outputs: bool) -> dict[str, set[int]]:
        """Per layer, the outputs, or else the inputs, that go when `channels` of the group do."""
        gone = torch.tensor(sorted(channels), dtype=torch.long)
        members = [own for own in self.members if own.outputs == outputs]
        return {own.name: set(own.indices[torch.isin(own.channels, gone)].tolist()) for own in members}

    def lost(self, channels: Iterable[int]) -> dict[str, set[int]]:
        """Per stage, the channels of its map that go when `channels` of the group do."""
        gone = torch.tensor(sorted(channels), dtype=torch.long)
        return {own.stage: set(own.indices[torch.isin(own.channels, gone)].tolist()) for own in self.maps}

    def inside(self, network: nn.Module) -> ChannelGroup:
        """The part of the group whose layers `network` has, by name, with the layers that `network` holds."""
        layers = dict(network.named_modules())
        # timm puts an identity where it takes the classifier away: no layer of the network any more.
        kept = (m for m in self.members if not isinstance(layers.get(m.name, nn.Identity()), nn.Identity))
        members = [replace(m, layer=layers[m.name]) for m in kept]
        return replace(self, members=tuple(members))


class ChannelGraph:
    """The dependency graph of a classification network, and the cuts that it allows.

    A 1x1 probe on the map of each of `stages` is part of the graph: what is cut from its input is what
    that map loses.
    """

    def __init__(self, architecture: Architecture, network: nn.Module, stages: Sequence[str]) -> None:
        probed = _Probed(architecture, network, stages)
        # Tracing follows gradients, so every parameter must have them.
        for parameter in probed.parameters():
            parameter.requires_grad_(True)
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parameters outside layers, which keep their shape here
            image = torch.zeros(1, 3, architecture.size, architecture.size)
            self._graph = tp.DependencyGraph().build_dependency(probed, image)
        self.network = network
        self._names = {module: name for name, module in network.named_modules()}
        self._stages: Mapping[nn.Module, str] = dict(zip(probed.probes, stages, strict=True))
        self._fixed = {*architecture.factory.classifiers(network), *probed.probes}
        # By root, why a group cannot be cut.
        self.left_whole: dict[str, str] = {}
        self._groups = self._apart(list(self._find()))

    def groups(self) -> list[ChannelGroup]:
        """All groups that can be cut, in Torch-Pruning's order. Those that cannot are in `left_whole`."""
        return list(self._groups)

    def remove(self, removals: Mapping[str, Sequence[int]]) -> None:
        """Cut channels, given by the root of their group, and all that follows, out of `network`. Works once.

        Raises:
            CompressError: an index is outside its group.
        """
        cuts = []
        for group in self._groups:
            channels = removals.get(group.root, ())
            if any(not 0 <= channel < group.size for channel in channels):
                raise CompressError(f"channels {channels} of {group.root}: it has channels 0 to {group.size - 1}")
            if channels:
                cuts.append(dependent(self._graph, self.network.get_submodule(group.root), channels)[0])
        # One cut per layer: places in it do not move between the groups that it is part of.
        together(cuts).prune(record_history=False)

    def _find(self) -> Iterator[ChannelGroup]:
        visited = set(self._fixed)
        for root in self._graph.module2node:
            if not isinstance(root, nn.Conv2d | nn.Linear) or root in visited:
                continue
            group, trouble = dependent(self._graph, root, range(self._graph.get_out_channels(root)))
            outputs = {i.dep.target.module for i in group.items if self._graph.is_out_channel_pruning_fn(i.dep.handler)}
            visited |= outputs
            if outputs & self._fixed:
                continue
            described = self._describe(group)
            if described.size % described.blocks:
                trouble = "a grouped convolution shares its channels unevenly"
            if trouble:
                self.left_whole[described.root] = trouble
            else:
                yield described

    def _apart(self, groups: list[ChannelGroup]) -> list[ChannelGroup]:
        """The groups that share no channel of any layer."""
        owners: dict[tuple[str, bool, int], list[str]] = {}
        for group in groups:
            for member in group.members:
                for index in member.indices.tolist():
                    owners.setdefault((member.name, member.outputs, index), []).append(group.root)
        shared = {root for roots in owners.values() if len(roots) > 1 for root in roots}
        self.left_whole |= dict.fromkeys(shared, "two groups have channels of a layer in common")
        return [group for group in groups if group.root not in shared]

    def _describe(self, group: tp.dependency.Group) -> ChannelGroup:
        root = group[0].dep.target.module
        members, maps = [], []
        blocks = 1
        for item in group.items:
            layer = item.dep.target.module
            indices, channels = torch.tensor(item.idxs), torch.tensor(item.root_idxs)
            if layer in self._stages:
                maps.append(MapMember(self._stages[layer], indices, channels))
            if layer not in self._names:
                continue  # an operation without parameters: a sum, an activation, a reshape
            outputs = self._graph.is_out_channel_pruning_fn(item.dep.handler)
            members.append(Member(self._names[layer], layer, outputs, indices, channels))
            if isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.out_channels:
                blocks = max(blocks, layer.groups)
        return ChannelGroup(self._names[root], len(group[0].idxs), tuple(members), blocks, tuple(maps))


class _Probed(nn.Module):
    """A network with a 1x1 convolution on the map of each stage."""

    def __init__(self, architecture: Architecture, network: nn.Module, stages: Sequence[str]) -> None:
        super().__init__()
        self._architecture, self._stages = architecture, tuple(stages)
        self.network = network
        with torch.no_grad():
            _, maps = self._run(torch.zeros(1, 3, architecture.size, architecture.size))
        # skip_init: random weights would be drawn from the caller's generator.
        self.probes = nn.ModuleList(
            nn.utils.skip_init(nn.Conv2d, found.shape[1], 1, 1)  # type: ignore[no-untyped-call]
            for found in maps
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        scores, maps = self._run(x)
        return [scores, *(probe(feature_map) for probe, feature_map in zip(self.probes, maps, strict=True))]

    def _run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self._architecture.factory.run_whole(self._architecture.model, self.network, x, self._stages)
