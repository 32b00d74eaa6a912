"""Channels of like strength around depthwise convolutions (Nagel et al. 2019, arXiv 1906.04721, section 4.1).

An activation is rounded with one scale for all its channels. A depthwise convolution has a filter of its own for each:
nothing in training keeps one channel from being a thousand times as loud as another, since its filter makes up for it,
and the quiet one is rounded to nothing. As ReLU(b x) = b ReLU(x) for b > 0,

    W2 f(W1 x + c)  =  (W2 / b) f(b W1 x + b c),    one b > 0 for each channel y = f(W1 x + c),

is the same network. HardSwish(x) = x HardSigmoid(x) becomes b HardSwish(x) = u HardSigmoid(u / b), u = b x.

- Into a depthwise convolution b = 1 / max |y|: each of its filters has a scale of its own, so nothing is lost there.
- From a depthwise convolution into a dense one b = sqrt(max |w| / max |y|), w being what reads the channel: its weights
  share a scale with those of other channels, and the root shares the loss between y and w. Where a gate (squeeze and
  excitation) multiplies y first, what makes the gate reads y / b too.
- In front of a HardSwish b = 1 / max(max x, min(3, -min x)): below -3 it is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from compress.backbone import BackboneSpec
from compress.export.graph import attribute, readers_of
from compress.progress import Track, quiet
from compress.quantization.qdq import sort_nodes
from compress.quantization.streaming import HARD, spread, stream

IMAGES = 32  # at most, spread evenly, to see how loud a channel gets
_QUIETEST = 2.0**-10  # of the loudest channel: one that is silent on these images may not be on others
_FLOOR = -1.0  # of b x in front of a HardSwish: what lies below was below -3, or below all that was seen

Arrays = dict[str, NDArray[Any]]


class Equalized(NamedTuple):
    """A float model, names of nodes better left in float, and the smallest useful number of some values."""

    model: onnx.ModelProto
    float_nodes: Sequence[str]
    floors: Mapping[str, float]


class _Site(NamedTuple):
    """A convolution, the value y that comes out of it or of the ReLU behind it, and the convolutions that read y.

    With a HardSwish in between, `value` is what that reads.
    """

    producer: NodeProto
    hard_swish: NodeProto | None
    value: str
    consumers: list[NodeProto]


def equalized(
    model: onnx.ModelProto, spec: BackboneSpec, images: Sequence[Any], places: Sequence[int], *, track: Track = quiet
) -> Equalized:
    """A copy of `model` that computes the same maps by way of channels of like strength.

    Args:
        images: uint8 RGB (3, H, W); `images[place]` is read for some of `places`.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in copied.graph.initializer}
    arrays: Arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    sites = list(_sites(copied.graph, arrays))
    lows, highs = (
        _extremes(model, [site.value for site in sites], spec, images, spread(places, IMAGES), track)
        if sites
        else ({}, {})
    )
    float_nodes: list[str] = []
    floors: dict[str, float] = {}
    changed = dict(arrays)
    for site in sites:
        low, high, reader = lows[site.value], highs[site.value], site.consumers[-1]
        if site.hard_swish is not None:
            by = 1 / _floored(np.maximum(high, np.minimum(HARD, -low)))
            float_nodes += _scale_hard_swish(copied.graph, site.hard_swish, by)
            floors[site.value] = _FLOOR
        else:
            by = 1 / _floored(np.maximum(high, -low))
            if not _is_depthwise(reader, arrays):
                by = np.sqrt(by * _floored(np.abs(arrays[reader.input[1]]).max(axis=(0, 2, 3))))
        _scale_outputs(site.producer, by, changed)
        for consumer in site.consumers:
            _scale_inputs(consumer, 1 / by, changed)
    for name, values in changed.items():
        if values is not arrays[name]:
            tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    sort_nodes(copied.graph)
    return Equalized(copied, float_nodes, floors)


def _sites(graph: onnx.GraphProto, arrays: Arrays) -> Iterator[_Site]:
    outputs = {output.name for output in graph.output}
    for producer in graph.node:
        if not _is_own(graph, producer, arrays):
            continue
        value, hard_swish = str(producer.output[0]), None
        y, readers = value, readers_of(graph, value)
        if len(readers) == 1 and readers[0].op_type in ("Relu", "HardSwish") and value not in outputs:
            y = str(readers[0].output[0])
            if readers[0].op_type == "HardSwish":
                hard_swish = readers[0]
            else:
                value = y
            readers = readers_of(graph, y)
        consumers = _consumers(graph, y, readers)
        if outputs.intersection([y, *(each.input[0] for each in consumers)]):
            continue
        if not consumers or not all(_is_own(graph, each, arrays) for each in consumers):
            continue
        if any(_is_depthwise(each, arrays) for each in (producer, consumers[-1])):
            yield _Site(producer, hard_swish, value, consumers)


def _consumers(graph: onnx.GraphProto, value: str, readers: list[NodeProto]) -> list[NodeProto]:
    """What reads `value`: one node, or the first layer of its gate and the one behind the gate; else nothing."""
    if len(readers) == 1:
        return readers
    means = [node for node in readers if node.op_type in ("ReduceMean", "GlobalAveragePool")]
    products = [node for node in readers if node.op_type == "Mul" and list(node.input).count(value) == 1]
    if not (len(means) == len(products) == 1 and len(readers) == 2):
        return []
    squeezed, gated = readers_of(graph, means[0].output[0]), readers_of(graph, products[0].output[0])
    return [*squeezed, *gated] if len(squeezed) == len(gated) == 1 else []


def _is_own(graph: onnx.GraphProto, node: NodeProto, arrays: Arrays) -> bool:
    """Whether `node` is a convolution, dense or depthwise, with constant weights that no other node reads."""
    constants = [name for name in node.input[1:] if name]
    if node.op_type != "Conv" or not all(name in arrays and len(readers_of(graph, name)) == 1 for name in constants):
        return False
    return arrays[constants[0]].ndim == 4 and (attribute(node, "group", 1) == 1 or _is_depthwise(node, arrays))


def _is_depthwise(node: NodeProto, arrays: Arrays) -> bool:
    shape: tuple[int, ...] = arrays[node.input[1]].shape
    return 1 < attribute(node, "group", 1) == shape[0] and shape[1] == 1


def _extremes(
    model: onnx.ModelProto,
    names: list[str],
    spec: BackboneSpec,
    images: Sequence[Any],
    places: Sequence[int],
    track: Track,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The least and the largest number of each channel of each value."""
    lows: dict[str, Any] = dict.fromkeys(names, np.inf)
    highs: dict[str, Any] = dict.fromkeys(names, -np.inf)
    for seen in stream(model, names, spec, images, places, title="strength of channels", track=track):
        for name in names:
            lows[name] = np.minimum(lows[name], seen[name].min(axis=(0, 2, 3)))
            highs[name] = np.maximum(highs[name], seen[name].max(axis=(0, 2, 3)))
    return lows, highs


def _floored(strengths: NDArray[np.float32]) -> NDArray[np.float64]:
    largest = float(strengths.max(initial=0.0))
    return np.maximum(strengths.astype(np.float64), largest * _QUIETEST) if largest > 0 else np.ones(len(strengths))


def _scale_hard_swish(graph: onnx.GraphProto, node: NodeProto, by: NDArray[np.float64]) -> list[str]:
    """Have `node` read u = b x and give b HardSwish(x) = u HardSigmoid(u / b); the names of the two products."""
    u, y = str(node.input[0]), str(node.output[0])
    strengths, unscaled, gate, product = (
        f"{node.name}/{name}" for name in ("strengths", "unscaled", "gate", "product")
    )
    graph.initializer.append(numpy_helper.from_array((1 / by).astype(np.float32).reshape(1, -1, 1, 1), strengths))
    graph.node.extend(
        [
            helper.make_node("Mul", [u, strengths], [unscaled], unscaled),
            helper.make_node("HardSigmoid", [unscaled], [gate], gate, alpha=1 / (2 * HARD), beta=0.5),
            helper.make_node("Mul", [u, gate], [y], product),
        ]
    )
    graph.node.remove(node)
    return [unscaled, product]


def _scale_outputs(node: NodeProto, by: NDArray[np.float64], arrays: Arrays) -> None:
    for name in node.input[1:]:
        if name:
            shape = (-1,) + (1,) * (arrays[name].ndim - 1)
            arrays[name] = arrays[name] * by.reshape(shape)


def _scale_inputs(node: NodeProto, by: NDArray[np.float64], arrays: Arrays) -> None:
    name = node.input[1]
    axes = (-1, 1, 1, 1) if _is_depthwise(node, arrays) else (1, -1, 1, 1)
    arrays[name] = arrays[name] * by.reshape(axes)
