"""Layers that stay float: chosen by patterns over the parent's own names, or for want of an integer kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import onnx

from compress.errors import CompressError, some_of
from compress.export.graph import layer_of
from compress.quantization.qdq import OPERATORS


def roundable_layers(model: onnx.ModelProto) -> list[str]:
    """The layers that can be int8, in the order in which they run.

    A ReLU or clip right behind a layer belongs to it: both are one integer kernel, with one rounding.
    """
    return list(_units(model))


def _units(model: onnx.ModelProto) -> dict[str, list[str]]:
    """The names of the nodes of each layer."""
    readers = Counter(value for node in model.graph.node for value in node.input)
    readers.update(output.name for output in model.graph.output)
    owner: dict[str, str] = {}
    units: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type not in OPERATORS:
            continue
        source = node.input[0]
        follows = node.op_type in ("Relu", "Clip") and readers[source] == 1
        layer = owner.get(source, layer_of(node)) if follows else layer_of(node)
        owner[node.output[0]] = layer
        units.setdefault(layer, []).append(str(node.name))
    return units


def layers_without_kernel(model: onnx.ModelProto) -> dict[str, str]:
    """The layers that stay float whatever is asked, and the operator that no integer kernel computes."""
    return {layer_of(node): str(node.op_type) for node in model.graph.node if node.op_type not in OPERATORS}


def matching_layers(model: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    """The layers that one of the glob `patterns` matches; `layer1` means the layer and all inside it.

    Raises:
        CompressError: a pattern matches nothing; the message lists some names.
    """
    layers = roundable_layers(model)
    found: set[str] = set()
    for pattern in patterns:
        hits = {layer for layer in layers if _matches(layer, pattern)}
        if not hits:
            raise CompressError(
                f"no layer is called {pattern!r}, so none can stay float: the names are {some_of(layers, 12)}"
            )
        found |= hits
    return [layer for layer in layers if layer in found]


def nodes_of(model: onnx.ModelProto, layers: Iterable[str]) -> list[str]:
    """The names of the nodes of `layers`."""
    units = _units(model)
    return [name for layer in layers for name in units[layer]]


def _matches(layer: str, pattern: str) -> bool:
    return any(fnmatchcase(layer, each) for each in (pattern, f"{pattern}.*", f"{pattern}/*"))
