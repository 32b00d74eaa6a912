"""Export: a backbone as one ONNX file, proved equal to the original, and loaded back in its place."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from compress.backbone import Backbone, in_float32
from compress.cost import cost_of
from compress.export.graph import DEFAULT_OPSET, OPSETS, check_opset, to_graph
from compress.export.header import FORMAT, Header, read_model
from compress.export.onnx_backbone import OnnxBackbone, load_onnx, save_onnx
from compress.export.parity import FLOAT_TOLERANCE, require_float_parity
from compress.export.runtimes import RUNTIMES
from compress.export.views import normalised_views, patterned_views
from compress.files import require_writable

PARITY_IMAGES = 4

__all__ = [
    "DEFAULT_OPSET",
    "FLOAT_TOLERANCE",
    "FORMAT",
    "OPSETS",
    "RUNTIMES",
    "Header",
    "OnnxBackbone",
    "export_onnx",
    "load_onnx",
    "read_model",
    "save_onnx",
    "to_graph",
]


def export_onnx(
    backbone: Backbone,
    path: str | os.PathLike[str],
    *,
    opset: int = DEFAULT_OPSET,
    images: Sequence[Tensor] = (),
) -> OnnxBackbone:
    """Write `backbone` to `path` as an ONNX model in float32 (see `to_graph`).

    Before it is written, its maps are compared with PyTorch's on four of `images` (uint8 RGB (3, H, W)), or on smooth
    random ones: they may differ by 0.001 of their range.

    Returns:
        What `load_onnx` makes of the file.

    Raises:
        CompressError: an opset outside 18 to 23, a path that cannot be written, an operator that ONNX does not have,
            or maps that differ; the message names the layer.
    """
    check_opset(opset)
    require_writable(path)
    backbone = in_float32(backbone)
    spec = backbone.spec
    checked = range(min(len(images), PARITY_IMAGES))
    views = normalised_views(images, checked, spec) if checked else patterned_views(spec)
    graph = to_graph(backbone, opset=opset)
    require_float_parity(backbone, graph, views)
    exported = OnnxBackbone(graph.model, Header(spec, "fp32", cost_of(backbone)))
    save_onnx(exported, path)
    return exported
