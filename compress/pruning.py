"""The verb `prune`: score the channel groups, keep the best of each, and build the smaller backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from compress.architectures import find_architecture
from compress.backbone import Backbone, Pruning, assemble, whole_network
from compress.channel_groups import ChannelGraph, ChannelGroup
from compress.errors import CompressError, unknown
from compress.importance import METHODS


def prune(backbone: Backbone, *, ratio: float, method: str = "magnitude", seed: int = 0) -> Backbone:
    """A new backbone with the share `ratio` of the channels of every group removed; the given one is untouched.

    Each group is ranked by itself (scope `local`) and keeps floor((1 - ratio) * channels). The whole
    classification network is slimmed by the same rule, so that its size can be compared with the
    literature, but only layers up to the last tap are scored and kept.

    Args:
        backbone: dense or already slimmed; ratios multiply.
        ratio: share of channels to remove, in [0, 1).
        method: a name in `METHODS`.
        seed: of the random choices that a method makes.

    Raises:
        CompressError: a ratio outside [0, 1) or one that empties a layer, or an unknown method.
    """
    check_request(ratio, method)
    score = METHODS[method].score
    network = whole_network(backbone)
    classifier = find_architecture(backbone.spec.arch).factory.classifier(network)
    trunk_names = backbone.trunk.state_dict().keys()
    trained = {name.rpartition(".")[0] for name in trunk_names}
    generator = torch.Generator().manual_seed(seed)
    removals = []
    removed: dict[str, list[int]] = {}
    try:
        graph = ChannelGraph(network, classifier, backbone.spec.size)
        groups = graph.groups()
        _check_no_layer_empties(groups, ratio)
        for group in groups:  # score all before the first cut
            members = tuple(member for member in group.members if member.name in trained)
            # A group wholly past the last tap has no trained weights: which of its channels go is all the same.
            scores = score(replace(group, members=members), generator) if members else torch.zeros(group.size)
            removals.append(lowest(scores, _removed(group, ratio), group.blocks))
        for group, channels in zip(groups, removals, strict=True):
            if channels:
                removed.update(graph.remove(group, channels))
        if any(0 in tensor.shape for tensor in network.state_dict().values()):
            raise ValueError("two groups cut the same layer")
    except CompressError:
        raise
    except Exception as error:  # whatever Torch-Pruning stumbles over in a network that it does not understand
        raise CompressError(
            f"{backbone.spec.arch} cannot be pruned: its layers do not fit Torch-Pruning's dependency graph "
            f"({type(error).__name__}: {error}); choose another architecture"
        ) from error

    state = network.state_dict()
    before = backbone.spec.pruning
    pruning = Pruning(
        method=method if before is None or before.method == method else f"{before.method}+{method}",
        ratio=ratio if before is None else 1 - (1 - before.ratio) * (1 - ratio),
        scope="local",
        seed=seed,
        recover="none",
        kept=_kept({name: channels for name, channels in removed.items() if name in trained}, backbone),
        tail_shapes={name: tuple(tensor.shape) for name, tensor in state.items() if name not in trunk_names},
    )
    trunk_state = {name: state[name].detach().clone() for name in trunk_names}
    return assemble(replace(backbone.spec, pruning=pruning), trunk_state)


def check_request(ratio: float, method: str) -> None:
    """Refuse, before any work, what no backbone can be pruned by.

    Raises:
        CompressError: a ratio outside [0, 1), or an unknown method.
    """
    if not 0 <= ratio < 1:
        raise CompressError(f"ratio {ratio} is outside [0, 1): 0.5 removes half of the channels of every layer")
    if method not in METHODS:
        raise unknown("method", method, METHODS, "compress methods lists them")


def lowest(scores: Tensor, count: int, blocks: int = 1) -> list[int]:
    """Indices of the `count` smallest scores, ties by index, ascending.

    With `blocks` > 1 the scores are averaged over that many equal consecutive blocks, and the same
    positions are taken from each, so that the blocks stay of one size; `count` is then per block.
    """
    per_block = scores.view(blocks, -1).mean(dim=0)
    order = torch.argsort(per_block, stable=True)[:count]
    size = len(per_block)
    return sorted(int(index) + block * size for index in order for block in range(blocks))


def _removed(group: ChannelGroup, ratio: float) -> int:
    """How many channels go, per block."""
    size = group.size // group.blocks
    # 1e-9: 10 * (1 - 0.9) is 0.99... in floating point, and one channel should stay.
    return size - math.floor(size * (1 - ratio) + 1e-9)


def _check_no_layer_empties(groups: Sequence[ChannelGroup], ratio: float) -> None:
    narrowest = min(groups, key=lambda group: group.size // group.blocks)
    size = narrowest.size // narrowest.blocks
    if _removed(narrowest, ratio) >= size:
        largest = math.floor((1 - 1 / size) * 1000) / 1000
        raise CompressError(
            f"ratio {ratio} would leave none of the {size} channels of {narrowest.root}: "
            f"the largest ratio that leaves one is {largest}"
        )


def _kept(removed: Mapping[str, Sequence[int]], backbone: Backbone) -> dict[str, list[int]]:
    """Kept output channels per pruned layer, as indices into the dense parent."""
    before = dict(backbone.spec.pruning.kept) if backbone.spec.pruning else {}
    kept = {name: list(indices) for name, indices in before.items()}
    state = backbone.trunk.state_dict()
    for name, channels in removed.items():
        width = state[f"{name}.weight"].shape[0]
        parents = before.get(name, range(width))
        gone = set(channels)
        kept[name] = [parents[index] for index in range(width) if index not in gone]
    return kept
