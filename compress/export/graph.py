"""From a backbone to an ONNX graph: batch norms folded, every node named after the layer that it comes from."""

from __future__ import annotations

import ast
import contextlib
import copy
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import NodeProto, helper
from torch import nn
from torch.export import Dim, ExportedProgram

from compress.backbone import Backbone
from compress.errors import CompressError

OPSETS = (18, 23)  # the oldest that PyTorch's exporter writes, the newest that our tests run in ONNX Runtime
DEFAULT_OPSET = 18  # every runtime since 2023 reads it
INPUT = "images"
_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules that a node lies in
_TRUNK = "trunk."
_TRACED = 2  # images of the batch that is traced: torch.export takes a batch of 1 for a constant


@dataclass(frozen=True)
class Graph:
    """An ONNX model, and where its values come from.

    `origins` maps a value to the module of the backbone's trunk whose output it is, and which of its runs: behind a
    folded convolution lies the batch norm's output.
    """

    model: onnx.ModelProto
    origins: Mapping[str, tuple[str, int]]


def to_graph(backbone: Backbone, *, opset: int = DEFAULT_OPSET) -> Graph:
    """`backbone` in float32 as an ONNX model; the backbone is left as it was.

    Input: `images` (N, 3, S, S), float32, normalised, S = spec.size, any N. Outputs: each tap's map, under its name.
    Batch norms behind convolutions are folded: w' = w gamma / sqrt(var + eps), b' = beta + (b - mean) gamma /
    sqrt(var + eps) (Jacob et al. 2018, arXiv 1712.05877, section 3.2).

    A node bears the name of its layer in the parent network (`layer1.0.conv1`); what a module computes
    itself is named `layer1.0/add`, and what runs twice has `#2` behind its name.

    Raises:
        CompressError: an opset outside 18 to 23, or an operator that ONNX does not have; the message names its layer.
    """
    check_opset(opset)
    network = copy.deepcopy(backbone).cpu().float().eval()
    side = backbone.spec.size
    images = torch.zeros(_TRACED, 3, side, side)
    with _silent(), torch.no_grad():
        try:
            program = torch.export.export(network, (images,), dynamic_shapes=({0: Dim("batch")},))
        except Exception as error:  # torch.export has no one class for what it cannot trace
            raise CompressError(
                f"{backbone.spec.arch} cannot be traced for ONNX ({_first_line(error)}): choose another architecture"
            ) from error
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=list(backbone.spec.taps),
                opset_version=opset,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise CompressError(_unsupported(program, error)) from error
    if exported is None:  # only where a file is asked for
        raise CompressError(f"PyTorch's exporter returned nothing for {backbone.spec.arch}")
    model = exported.model_proto
    origins = _origins(model.graph, _leaves(network))
    _name_after_layers(model.graph, _leaves(network))
    _tidy(model)
    return Graph(model, origins)


def check_opset(opset: int) -> None:
    """Raises CompressError for an opset that is not written."""
    low, high = OPSETS
    if not low <= opset <= high:
        raise CompressError(f"opset {opset} is outside {low} to {high}: {DEFAULT_OPSET} is read by every runtime")


def layer_of(node: NodeProto) -> str:
    """The layer that a node of ours comes from: its name, without the count of its runs."""
    return str(node.name).split("#")[0]


def readers_of(graph: onnx.GraphProto, value: str) -> list[NodeProto]:
    """The nodes that read `value`."""
    return [node for node in graph.node if value in node.input]


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """What the attribute `name` of a node holds: a number, or a list of them."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def _leaves(network: nn.Module) -> set[str]:
    return {name for name, module in network.named_modules() if not any(module.children())}


def _origins(graph: onnx.GraphProto, leaves: set[str]) -> dict[str, tuple[str, int]]:
    origins = {}
    runs: Counter[str] = Counter()
    scopes = [_scope(node) for node in graph.node]
    for node, scope in zip(graph.node, scopes, strict=True):
        # A module with modules in it: its output is its only node's, such as a norm's whose activation does nothing.
        alone = sum(other == scope or other.startswith(f"{scope}.") for other in scopes) == 1
        if scope in leaves or alone:
            origins[str(node.output[0])] = (scope.removeprefix(_TRUNK), runs[scope])
            runs[scope] += 1
    return origins


def _name_after_layers(graph: onnx.GraphProto, leaves: set[str]) -> None:
    weights = {tensor.name: tensor.name.removeprefix(_TRUNK) for tensor in graph.initializer}
    runs: Counter[str] = Counter()
    for node in graph.node:
        name = _layer_name(node, leaves)
        runs[name] += 1
        node.name = name if runs[name] == 1 else f"{name}#{runs[name]}"
        node.input[:] = [weights.get(value, value) for value in node.input]
    for tensor in graph.initializer:
        tensor.name = weights[tensor.name]


def _layer_name(node: NodeProto, leaves: set[str]) -> str:
    if node.op_type in ("Conv", "ConvTranspose", "Gemm") and node.input[1].endswith(".weight"):
        return str(node.input[1]).removesuffix(".weight").removeprefix(_TRUNK)
    scope = _scope(node)
    layer = scope.removeprefix(_TRUNK)
    return layer if scope in leaves else f"{layer}/{node.op_type.lower()}".lstrip("/")


def _scope(node: NodeProto) -> str:
    """The innermost module that the exporter saw the node in."""
    noted = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "['', '']")
    *scopes, _ = ast.literal_eval(noted)
    return next((scope for scope in reversed(scopes) if scope), "")


def _tidy(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes, which take more bytes than a slim network, and what names a machine's paths."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]  # every reader infers the shapes between
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.producer_name, model.producer_version, model.doc_string = "prunecore", "", ""
    model.graph.name, model.graph.doc_string = "backbone", ""
    used = {imported.domain for imported in model.opset_import if imported.domain in ("", "ai.onnx")}
    used |= {node.domain for node in model.graph.node}
    kept = [helper.make_opsetid(each.domain, each.version) for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _unsupported(program: ExportedProgram, error: Exception) -> str:
    told = " ".join(str(each) for each in _chain(error))
    operator = re.search(r"op='([\w.:]+)'", told)
    name = operator[1] if operator else _first_line(error)
    layer = _layer_that_calls(program, told, name)
    return f"operator {name} of layer {layer} has no form in ONNX: replace the layer, or choose another architecture"


def _layer_that_calls(program: ExportedProgram, told: str, operator: str) -> str:
    """The layer of the node that the exporter stumbled over; it names the node as it was after decomposition."""
    noted = re.search(r"translating node %(\w+)", told)
    names = {noted[1] if noted else "", operator.rsplit(".", 1)[-1]}
    for stage in (program, program.run_decompositions()):
        for node in stage.graph.nodes:
            if node.name in names or any(name and name in str(node.target) for name in names):
                stack = [scope for scope, _ in (node.meta.get("nn_module_stack") or {}).values() if scope]
                return str(stack[-1]).removeprefix(_TRUNK) if stack else "(the backbone itself)"
    return "(unknown)"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter warns of its own insides; what matters comes as an exception."""
    loggers: dict[logging.Logger, Any] = {}
    for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir"):
        logger = logging.getLogger(name)
        loggers[logger] = logger.level
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)
