"""Whether an exported backbone computes what the original does and, where it does not, since which layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.backbone import Backbone
from compress.errors import CompressError
from compress.export.graph import Graph, layer_of
from compress.export.runtimes import open_model
from compress.networks.evaluating import evaluating
from compress.networks.hooks import noting

FLOAT_TOLERANCE = 1e-3  # of a map's range: other orders of summation, nothing else
Values = Mapping[str, NDArray[np.float32]]
Measure = Callable[[NDArray[np.float32], NDArray[np.float32]], float]


def deviation(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest absolute difference over the range of `reference`: 0 is equal."""
    span = float(reference.max() - reference.min())
    largest = float(np.abs(reference - other).max())
    return largest / span if span > 0 else largest


def relative_error(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """||reference - other|| / ||reference||: 0 is equal, 0.1 is 20 dB of signal over noise (SQNR = -20 log10)."""
    norm = float(np.linalg.norm(reference))
    return float(np.linalg.norm(reference - other)) / norm if norm > 0 else float(np.abs(other).max() > 0)


def require_float_parity(backbone: Backbone, graph: Graph, images: Tensor) -> float:
    """The largest `deviation` of any tap's map between PyTorch and ONNX Runtime, both in float32.

    Args:
        images: (N, 3, S, S), normalised.

    Raises:
        CompressError: it is above 0.001; the message names the layer where it starts.
    """
    with evaluating(backbone), torch.inference_mode():
        expected = [found.float().numpy() for found in backbone(images)]
    found = open_model(graph.model.SerializeToString())(images.contiguous().numpy())
    worst = max(deviation(one, other) for one, other in zip(expected, found, strict=True))
    if not worst <= FLOAT_TOLERANCE:  # a NaN is no parity either
        layer = _first_float_layer(backbone, graph, images)
        raise CompressError(
            f"the ONNX maps of this {backbone.spec.arch} are off by {worst:.2g} of their range, {FLOAT_TOLERANCE:g} is "
            f"allowed; it starts in layer {layer}: keep this backbone in PyTorch, and report the layer"
        )
    return worst


def intermediate(model: onnx.ModelProto, names: Sequence[str], images: Tensor) -> Values:
    """The values called `names` in `model` for a normalised batch; those that it does not have are left out."""
    produced = {output for node in model.graph.node for output in node.output}
    wanted = [name for name in dict.fromkeys(names) if name in produced]
    found = open_model(watching(model, wanted).SerializeToString())(images.contiguous().numpy())
    return dict(zip(wanted, found, strict=True))


def watching(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of `model` whose outputs are the values called `names`, all of them float32."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.output[:]
    copied.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return copied


def first_layer_above(
    model: onnx.ModelProto, expected: Values, found: Values, measure: Measure, tolerance: float
) -> str:
    """The layer of the first node of `model` whose value is further off than `tolerance` by `measure`."""
    for node in model.graph.node:
        for name in node.output:
            if name in expected and name in found and not measure(expected[name], found[name]) <= tolerance:
                return layer_of(node)
    return "(the last)"


def _first_float_layer(backbone: Backbone, graph: Graph, images: Tensor) -> str:
    seen: dict[str, list[NDArray[np.float32]]] = {}

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            seen.setdefault(name, []).append(output.float().numpy().copy())  # an in-place layer may follow

    names = [name for name, _ in backbone.trunk.named_modules()]
    with noting(backbone.trunk, names, note), evaluating(backbone), torch.inference_mode():
        backbone(images)
    expected = {
        value: seen[name][place] for value, (name, place) in graph.origins.items() if place < len(seen.get(name, ()))
    }
    found = intermediate(graph.model, list(expected), images)
    return first_layer_above(graph.model, expected, found, deviation, FLOAT_TOLERANCE)
