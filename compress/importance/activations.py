"""Statistics of the activations that a network's channels carry, from forward passes alone."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.backbone import Backbone
from compress.channel_statistics import ChannelStatistics, RunningStatistics
from compress.concurrency import concurrently
from compress.errors import CompressError
from compress.graph import ChannelGroup
from compress.importance.batches import count, cut, prepare, require_enough
from compress.importance.lcp import consumers
from compress.importance.regions import Regions, region_batches
from compress.precision import bfloat16_pays
from compress.progress import Track, quiet

BATCH = 8
"""Images at work at a time, over all threads: the memory."""
PASS = 4
"""Images that go through the network together on a CPU, however many threads there are: while each pass has one thread,
the result is the same bit for bit, and to rounding otherwise."""

Read = Callable[[str, Tensor], None]
"""Told the name of a place and what is read there, as (N, H, W, C)."""


def collect_statistics(
    backbone: Backbone,
    groups: Sequence[ChannelGroup],
    images: Sequence[Tensor],
    *,
    regions: Regions | None = None,
    batch: int = BATCH,
    track: Track = quiet,
) -> dict[str, ChannelStatistics]:
    """Statistics of what each layer that reads a group is given, and of the tapped maps, over all images.

    No label is ever used. On processors with instructions for bfloat16 the maps are computed in it, at twice the
    speed; sums are float32 and float64 throughout.

    Args:
        groups: whose channels are wanted, with the layers of `backbone.trunk`.
        images: uint8 RGB (3, H, W) of any sizes, at least 8. Only the caller's thread reads them, in their order.
        regions: where the objects are, see `compress.importance.regions`; by default everywhere.
        batch: images at work at a time; it changes rounding alone.

    Returns:
        By the layer's name, and by the stage's name for maps: tapped stages, and stages that alone show a group whose
        next layer lies past the last tap.

    Raises:
        CompressError: too few images, images or regions of another kind, or activations that are not finite.
    """
    require_enough(images, "lcp")
    network = copy.deepcopy(backbone).eval().to(memory_format=torch.channels_last)
    layers, stages = _places(groups, network)
    device = next(network.parameters()).device
    half = bfloat16_pays(device)
    if half:  # once; autocast, which takes care of the other layers, would do it again at each batch
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(torch.bfloat16)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        twins = _twins(network, layers, stages)
    places = set(twins.values())
    here = threading.local()  # several threads run the one network, each on images of its own

    def read(name: str, values: Tensor) -> None:
        mask = here.mask
        here.statistics[name].add(values.flatten(0, 2), None if mask is None else _at(mask, values).flatten())

    def statistics_of(views_and_mask: tuple[Sequence[Tensor], Tensor | None]) -> dict[str, RunningStatistics]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            views, mask = views_and_mask
            here.mask = None if mask is None else mask.to(device)
            found = here.statistics = {name: RunningStatistics() for name in places}
            for stage, feature_map in zip(stages, network.stage_maps(prepare(views, network), stages), strict=True):
                if stage in places:
                    read(stage, feature_map.permute(0, 2, 3, 1))
            return found

    size = min(batch, PASS) if device.type == "cpu" else batch
    workers = min(batch // size, torch.get_num_threads())
    parts = zip(cut(images, size), region_batches(regions, images, size), strict=True)
    running = {name: RunningStatistics() for name in places}
    listening = _reading(network, {name: layer for name, layer in layers.items() if name in places}, read)
    with listening, contextlib.closing(concurrently(statistics_of, parts, workers)) as passes:
        for found in track(passes, "statistics", count(images, size)):
            for name, part in found.items():
                running[name].merge(part)  # in the order of the images, whichever thread was first
    if any(own.weight == 0 for own in running.values()):
        raise CompressError("the regions are empty in what the detector sees of the images: mark some of it")
    results = {name: own.result() for name, own in running.items()}
    for name, statistics in results.items():
        if not (statistics.l1.isfinite().all() and statistics.variance.isfinite().all()):
            raise CompressError(f"the activations at {name} are not finite: the backbone's weights are damaged")
    return {name: results[twin] for name, twin in twins.items()}


def _places(groups: Sequence[ChannelGroup], network: Backbone) -> tuple[dict[str, nn.Module], list[str]]:
    """Layers to listen at, and stages whose maps are read."""
    layers = {own.name: network.trunk.get_submodule(own.name) for group in groups for own in consumers(group)}
    wanted = set(network.spec.taps)
    for group in groups:
        if not consumers(group) and not any(own.stage in wanted for own in group.maps):
            wanted.update(own.stage for own in group.maps[:1])
    return layers, [stage for stage in network.stages if stage in wanted]


def _twins(network: Backbone, layers: Mapping[str, nn.Module], stages: Sequence[str]) -> dict[str, str]:
    """For each place that is reached, the first place where the same tensor is read: it is reduced once."""
    seen: list[tuple[str, Tensor, Tensor]] = []
    twins: dict[str, str] = {}

    def compare(name: str, values: Tensor) -> None:
        # Also its values: a layer may have changed it in place between the two.
        same = (first for first, tensor, before in seen if _is_view_of(tensor, values) and torch.equal(before, values))
        twins.setdefault(name, next(same, name))
        seen.append((name, values, values.clone()))

    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, network.spec.size, network.spec.size, generator=generator)
    with _reading(network, layers, compare):
        maps = network.stage_maps(image.to(next(network.parameters()).device), stages)
    for stage, feature_map in zip(stages, maps, strict=True):
        compare(stage, feature_map.permute(0, 2, 3, 1))
    return twins


def _is_view_of(tensor: Tensor, other: Tensor) -> bool:
    return tensor.data_ptr() == other.data_ptr() and tensor.shape == other.shape


@contextlib.contextmanager
def _reading(network: Backbone, layers: Mapping[str, nn.Module], read: Read) -> Iterator[None]:
    """Call `read` with what enters each of `layers`, while the context lasts."""

    def listener(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda layer, inputs: read(name, _channels_last(layer, inputs[0]))

    hooks = [layer.register_forward_pre_hook(listener(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _channels_last(layer: nn.Module, values: Tensor) -> Tensor:
    """As (N, H, W, C); a vector per image is a map of one position."""
    if isinstance(layer, nn.Conv2d):
        return values.permute(0, 2, 3, 1)
    return values.reshape(len(values), 1, -1, values.shape[-1]) if values.ndim < 4 else values


def _at(mask: Tensor, values: Tensor) -> Tensor:
    """Share of each position of the map (N, H, W, C) that lies in the region (N, 1, 224, 224), as (N, H, W)."""
    return F.interpolate(mask, values.shape[1:3], mode="area")[:, 0]
