"""The ranges of a float graph's activations on a stream of images, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from compress.backbone import BackboneSpec
from compress.errors import CompressError
from compress.export.graph import INPUT, attribute, layer_of
from compress.export.parity import watching
from compress.export.runtimes import open_model
from compress.export.views import normalised_views
from compress.progress import Track, quiet
from compress.quantization.affine import Range
from compress.quantization.histogram import Histogram

HARD = 3.0  # where HardSwish and PyTorch's HardSigmoid begin and end
BATCH = 4  # images whose activations are held at a time: 60 MB for a ResNet-18


@dataclass(frozen=True)
class Activations:
    """What a stream of images made of each value: a histogram, and the mean of each channel (C,)."""

    histograms: Mapping[str, Histogram]
    means: Mapping[str, NDArray[np.float64]]


def collect(
    model: onnx.ModelProto, spec: BackboneSpec, images: Sequence[Any], places: Sequence[int], *, track: Track = quiet
) -> Activations:
    """The input and every node's outputs, over the centre views of `images[place]`.

    Raises:
        CompressError: an image that is not uint8 RGB, or an activation that is not finite; the message names the layer.
    """
    names = [output for node in model.graph.node for output in node.output]
    layers = {output: layer_of(node) for node in model.graph.node for output in node.output}
    histograms = {name: Histogram() for name in (INPUT, *names)}
    sums: dict[str, Any] = dict.fromkeys(histograms, 0.0)
    for seen in stream(model, names, spec, images, places, title="calibration", track=track):
        for name, values in seen.items():
            try:
                histograms[name].add(values)
            except CompressError as error:
                raise CompressError(f"layer {layers.get(name, name)}: {error}") from error
            if values.ndim == 4:
                sums[name] = sums[name] + values.mean(axis=(2, 3), dtype=np.float64).sum(axis=0)
        seen.clear()  # before the next are computed: what is held is one batch
    return Activations(histograms, {name: total / len(places) for name, total in sums.items()})


def stream(
    model: onnx.ModelProto,
    names: Sequence[str],
    spec: BackboneSpec,
    images: Sequence[Any],
    places: Sequence[int],
    *,
    title: str,
    track: Track = quiet,
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The input and the values called `names`, of `BATCH` images at a time, over the centre views of `images[place]`.

    Raises:
        CompressError: an image that is not uint8 RGB.
    """
    run = open_model(watching(model, names).SerializeToString(), threads=torch.get_num_threads())
    starts = range(0, len(places), BATCH)
    for start in track(starts, title, len(starts)):
        views = normalised_views(images, places[start : start + BATCH], spec).contiguous().numpy()
        yield {INPUT: views, **dict(zip(names, run(views), strict=True))}


def spread(places: Sequence[int], count: int) -> list[int]:
    """At most `count` of `places`, spread evenly."""
    return [places[number] for number in np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)]


def useful(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """`ranges` without what the only reader of a value cannot tell apart.

    HardSwish(x) = x clip(x + 3, 0, 6) / 6 is zero below -3, and HardSigmoid clips at both ends: levels spent there
    would be lost, and what lies between is rounded the finer for it.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    outputs = {output.name for output in model.graph.output}
    narrowed = dict(ranges)
    for value, (low, high) in ranges.items():
        kinds = {str(node.op_type) for node in readers.get(value, ())}
        if value in outputs or len(kinds) != 1:
            continue
        if kinds == {"HardSwish"}:
            narrowed[value] = Range(max(low, -HARD), high)
        elif kinds == {"HardSigmoid"}:
            slope = min(attribute(node, "alpha", 0.2) for node in readers[value])
            offset = [attribute(node, "beta", 0.5) for node in readers[value]]
            narrowed[value] = Range(max(low, -max(offset) / slope), min(high, (1 - min(offset)) / slope))
    return narrowed
