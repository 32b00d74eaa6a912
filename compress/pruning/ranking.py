"""Rank the channels of a backbone, and cut the last of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compress.backbone import UNPRUNED, Backbone, Pruning, assemble, in_float32, whole_network
from compress.blank import BlankWeights
from compress.errors import CompressError, unknown
from compress.graph import ChannelGraph, ChannelGroup, check_cut
from compress.importance import ALIASES, METHODS, Method
from compress.importance.gathering import check_images, gather
from compress.importance.regions import Regions
from compress.progress import Track, quiet
from compress.pruning.selection import Rule, prunable, select

# As the largest share that a group may lose: whatever the ratio, one channel stays.
_ALL_BUT_ONE = math.nextafter(1.0, 0.0)


def method_name(name: str) -> str:
    """The key in `METHODS` of a name or alias: `bn` is `batch_norm`.

    Raises:
        CompressError: there is no such method.
    """
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise unknown("method", name, METHODS, "compress methods lists them")
    return name


def find_method(name: str) -> Method:
    """The method of that name or alias.

    Raises:
        CompressError: there is none.
    """
    return METHODS[method_name(name)]


@dataclass(frozen=True)
class Ranking:
    """A backbone whose channels are scored, ready to be cut at any ratio.

    Attributes:
        groups: the prunable groups of the part that the detector runs, with the layers of `backbone.trunk`.
        scores: per group (group.size,); the least go first.
        tail: groups wholly past the last tap, without layers. They have no trained weights: which of their channels go
            is all the same, and how many follows the ratio, except that one always stays.
    """

    backbone: Backbone
    method: str
    rule: Rule
    seed: int
    groups: tuple[ChannelGroup, ...]
    scores: tuple[Tensor, ...]
    tail: tuple[ChannelGroup, ...]

    def removals(self, ratio: float, *, full: Mapping[str, int] | None = None) -> dict[str, list[int]]:
        """Channels that go at `ratio`, by the root of their group; `full` as in `compress.pruning.selection.select`."""
        chosen = select(self.groups, self.scores, ratio, self.rule, full=full)
        level = replace(self.rule, scope="local", max_layer_ratio=self.rule.max_layer_ratio or _ALL_BUT_ONE)
        chosen += select(self.tail, [torch.zeros(group.size) for group in self.tail], ratio, level, full=full)
        roots = [group.root for group in (*self.groups, *self.tail)]
        return dict(zip(roots, chosen, strict=True))

    def cut(self, ratio: float, *, full: Mapping[str, int] | None = None) -> Backbone:
        """The smaller backbone.

        Raises:
            CompressError: a ratio outside [0, 1) or one that empties a layer.
        """
        ratio = float(ratio)  # of numpy's kinds no record can be written
        before = self.backbone.spec.pruning or UNPRUNED
        recorded = replace(
            before,
            method=_joined(self.backbone, self.method),
            # Rounded: 1 - (1 - 0.3) is 0.30000000000000004, and the record should say what was asked for.
            ratio=round(1 - (1 - before.ratio) * (1 - ratio), 12) if full is None else ratio,
            scope=self.rule.scope,
            seed=self.seed,
            # What was recovered before this cut does not make up for it; fresh weights are fresh ever after.
            recover="reinit" if before.recover.startswith("reinit") else "none",
        )
        return remove(self.backbone, self.removals(ratio, full=full), recorded)


@torch.inference_mode(False)  # some methods read gradients
def rank(
    backbone: Backbone,
    *,
    method: str,
    rule: Rule | None = None,
    seed: int = 0,
    images: Sequence[Tensor] | None = None,
    regions: Regions | None = None,
    ratio: float | None = None,
    track: Track = quiet,
) -> Ranking:
    """Score the channels of `backbone` by `method` (see `prune`), in float32.

    Args:
        ratio: of the cut to come, if it is known: one that empties a layer is refused before any image is read.
    """
    method = method_name(method)
    chosen = METHODS[method]
    check_images(method, chosen.reads, images, regions)
    rule = rule or Rule(scope=chosen.scope)
    backbone = in_float32(backbone)
    groups, tail = channel_groups(backbone, rule)
    if ratio is not None:
        select(groups, [torch.zeros(group.size) for group in groups], ratio, rule)
    given = () if images is None else images  # a tensor of images has no truth value
    evidence = gather(chosen.reads, backbone, groups, seed=seed, images=given, regions=regions, track=track)
    with torch.no_grad():
        scores = [chosen.score(group, evidence).cpu() for group in groups]
    # Without their layers: these are of a whole network that was made for its graph, and would be held as long.
    tail = [replace(group, members=(), maps=()) for group in tail]
    return Ranking(backbone, method, rule, seed, tuple(groups), tuple(scores), tuple(tail))


def channel_groups(backbone: Backbone, rule: Rule | None = None) -> tuple[list[ChannelGroup], list[ChannelGroup]]:
    """The prunable groups that have layers in the trunk, with those layers, and the groups that have none.

    Raises:
        CompressError: the network cannot be pruned, or `rule` leaves nothing to prune.
    """
    with _refusing_misfits(backbone):
        graph = _graph(backbone)
    found = graph.groups()
    if not found:
        reasons = "; ".join(sorted(set(graph.left_whole.values())))
        raise CompressError(
            f"{backbone.spec.arch} cannot be pruned: none of its layers can be cut ({reasons}); "
            "choose another architecture"
        )
    found = prunable(found, rule or Rule(), backbone.spec.taps)
    inside = [group.inside(backbone.trunk) for group in found]
    return [own for own in inside if own.members], [
        group for group, own in zip(found, inside, strict=True) if not own.members
    ]


def left_whole(backbone: Backbone) -> dict[str, str]:
    """Groups that no cut touches, by their first layer, with the reason.

    Raises:
        CompressError: the network cannot be pruned.
    """
    with _refusing_misfits(backbone):
        return dict(_graph(backbone).left_whole)


def remove(backbone: Backbone, removals: Mapping[str, Sequence[int]], recorded: Pruning) -> Backbone:
    """A new backbone without the channels `removals`, given by the root of their group.

    `recorded` tells how they were chosen; kept channels and shapes are filled in here.

    Raises:
        CompressError: the network's layers do not fit Torch-Pruning's graph.
    """
    outputs: dict[str, set[int]] = {}
    inputs: dict[str, set[int]] = {}
    maps: dict[str, set[int]] = {}
    with _refusing_misfits(backbone):
        graph = _graph(backbone)
        groups = [group for group in graph.groups() if removals.get(group.root)]
        for group in groups:
            chosen = removals[group.root]
            for found, of_group in (
                (maps, group.lost(chosen)),
                (outputs, group.cut(chosen, outputs=True)),
                (inputs, group.cut(chosen, outputs=False)),
            ):
                for name, channels in of_group.items():
                    found.setdefault(name, set()).update(channels)
        graph.remove(removals)
        state = graph.network.state_dict()
        if any(0 in tensor.shape for tensor in state.values()):
            raise ValueError("a layer would lose all of its channels")
    before = backbone.spec.pruning or UNPRUNED
    weights = backbone.trunk.state_dict()
    inside = {name: channels for name, channels in outputs.items() if f"{name}.weight" in weights}
    trained = {name for name in inside if isinstance(backbone.trunk.get_submodule(name), nn.Conv2d | nn.Linear)}
    widths = {name: weights[f"{name}.weight"].shape[0] for name in trained}
    pruning = replace(
        recorded,
        kept=_kept(before.kept, {name: outputs[name] for name in trained}, widths),
        stage_channels=_kept(before.stage_channels, maps, _stage_widths(backbone)),
        tail_shapes={name: tuple(tensor.shape) for name, tensor in state.items() if name not in weights},
    )
    try:
        state = {name: state[name].detach().clone() for name in weights}
        slim = assemble(replace(backbone.spec, pruning=pruning), state)
    except CompressError as error:
        raise CompressError(
            f"{backbone.spec.arch} cannot be pruned: its layers, slimmed, do not fit each other ({error}); round to a "
            "multiple of the groups of its norms, or choose another architecture"
        ) from error
    check_cut(backbone, slim, outputs=inside, inputs=inputs, maps=maps)
    return slim


@torch.inference_mode(False)  # tracing follows gradients, whatever the caller's mode
def _graph(backbone: Backbone) -> ChannelGraph:
    with BlankWeights():
        network = whole_network(backbone)
    return ChannelGraph(backbone.spec.architecture, network, backbone.stages)


@contextlib.contextmanager
def _refusing_misfits(backbone: Backbone) -> Iterator[None]:
    try:
        yield
    except CompressError:
        raise
    except Exception as error:  # whatever Torch-Pruning stumbles over in a network that it does not understand
        raise CompressError(
            f"{backbone.spec.arch} cannot be pruned: its layers do not fit Torch-Pruning's dependency graph "
            f"({type(error).__name__}: {error}); choose another architecture"
        ) from error


def _joined(backbone: Backbone, method: str) -> str:
    before = (backbone.spec.pruning or UNPRUNED).method
    if before == "none":
        return method
    return before if before.split("+")[-1] == method else f"{before}+{method}"


def _stage_widths(backbone: Backbone) -> dict[str, int]:
    """Channels of every stage's map."""
    return {stage["module"]: stage["num_chs"] for stage in backbone.feature_info.info}


def _kept(
    before: Mapping[str, Sequence[int]], removed: Mapping[str, Iterable[int]], widths: Mapping[str, int]
) -> dict[str, list[int]]:
    """Kept channels by layer or stage, as indices into the dense parent."""
    kept = {name: list(indices) for name, indices in before.items()}
    for name, channels in removed.items():
        gone = set(channels)
        if gone or name in kept:
            parents = before.get(name, range(widths[name]))
            kept[name] = [parents[index] for index in range(widths[name]) if index not in gone]
    return kept
