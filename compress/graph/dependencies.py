"""Which channels fall together: Torch-Pruning's dependency graph (Fang et al. 2023, section 3.2), followed to its end.

Torch-Pruning 1.6 walks a path again whenever it arrives with its channels in another order, which in
networks that slice and join maps (ReXNet, ResNeSt) takes exponential time. Here a channel passes a
layer once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning import _helpers, ops
from torch_pruning.dependency.dependency import Dependency
from torch_pruning.dependency.group import Group

RESHAPED = "the map is reshaped between its layers"


def dependent(graph: tp.DependencyGraph, root: nn.Module, channels: Iterable[int]) -> tuple[Group, str | None]:
    """All that must be cut together with the output `channels` of `root`, and why it cannot be, or None.

    The group is Torch-Pruning's: items with the indices `idxs` of a layer and the `root_idxs` that
    each falls with. Not cuttable are channels that

    - pass a split or slice: the network's code states its places as numbers, which a cut does not move;
    - are summed with other channels of the same root, so that one would take the other along;
    - arrive where no such channel is: the layers between mix channels in a way that the graph does not know.
    """
    cut = graph.get_pruner_of_module(root).prune_out_channels
    node = graph.module2node[root]
    start = Dependency(cut, cut, source=node, target=node)
    reached: dict[Any, tuple[Any, dict[int, int]]] = {}
    waiting = [(start, [_helpers._HybridIndex(idx=channel, root_idx=channel) for channel in channels])]
    widest = _widest(graph)
    trouble = None
    while waiting:
        step, arriving = waiting.pop()
        _, root_of = reached.setdefault((step.target, step.handler), (step, {}))
        fresh = [index for index in dict.fromkeys(arriving) if index.idx not in root_of]
        for index in arriving:
            if root_of.setdefault(index.idx, index.root_idx) != index.root_idx:
                trouble = "some channels can only go together with others of the same layer"
        trouble = trouble or _trouble(graph, step, fresh)
        for onward in step.target.dependencies if fresh else ():
            if onward.is_triggered_by(step.handler):
                leaving = fresh
                for mapping in onward.index_mapping:
                    # A loop of reshapes would multiply its channels for ever.
                    if not getattr(mapping, "reverse", True) and len(leaving) * getattr(mapping, "_stride", 1) > widest:
                        trouble, leaving = RESHAPED, []
                    leaving = mapping(leaving) if mapping is not None else leaving
                if any(index.idx >= widest for index in leaving):
                    trouble, leaving = RESHAPED, []
                if leaving:
                    waiting.append((onward, leaving))
    group = Group()
    group._DG = graph
    for step, root_of in reached.values():
        item = _helpers.GroupItem(step, list(root_of))
        item.root_idxs = list(root_of.values())
        group._group.append(item)
    return group, trouble


def together(groups: Sequence[Group]) -> Group:
    """One group out of several of one graph: per layer the union of their indices."""
    reached: dict[Any, tuple[Any, dict[int, None]]] = {}
    for group in groups:
        for step, indices in group.items:
            # Joins and reshapes hold no tensors to cut.
            if isinstance(step.target.module, nn.Parameter) or step.target.module.state_dict():
                _, union = reached.setdefault((step.target, step.handler), (step, {}))
                union.update(dict.fromkeys(indices))
    merged = Group()
    merged._DG = groups[0]._DG if groups else None
    merged._group = [_helpers.GroupItem(step, list(union)) for step, union in reached.values()]
    return merged


def _widest(graph: tp.DependencyGraph) -> int:
    layers = [layer for layer in graph.module2node if isinstance(layer, nn.Module)]
    widths = [count(layer) for layer in layers for count in (graph.get_out_channels, graph.get_in_channels)]
    return max(int(width) for width in widths if width is not None)


def _trouble(graph: tp.DependencyGraph, step: Dependency, channels: list[Any]) -> str | None:
    node = step.target
    if node.type in (ops.OPTYPE.SPLIT, ops.OPTYPE.UNBIND):
        return "the network's code splits the map at fixed channels"
    if (node.type == ops.OPTYPE.SLICE and node.module.dim == 1) or "CopySlices" in str(node.module):
        return "the network's code slices the map at fixed channels"
    if not isinstance(node.module, nn.Module) or node.type == ops.OPTYPE.OUTPUT:
        return None
    outputs = graph.is_out_channel_pruning_fn(step.handler)
    there = graph.get_out_channels(node) if outputs else graph.get_in_channels(node)
    if there is not None and any(index.idx >= there for index in channels):
        return RESHAPED
    return None
