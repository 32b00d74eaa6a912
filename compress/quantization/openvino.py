"""The other quantizer: NNCF on the same ONNX graph, for OpenVINO to run. An extra; imported where it is needed."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx

from compress.backbone import Backbone
from compress.errors import CompressError
from compress.export.graph import INPUT
from compress.export.runtimes import import_openvino
from compress.export.views import normalised_views
from compress.quantization.layers import nodes_of
from compress.quantization.qdq import sort_nodes


def nncf_rounder(
    model: onnx.ModelProto, backbone: Backbone, images: Sequence[Any], places: Sequence[int]
) -> Callable[[Sequence[str]], onnx.ModelProto]:
    """A function from the layers that stay float to the int8 model, rounded and bias-corrected by NNCF.

    The result is plain ONNX (QuantizeLinear, DequantizeLinear), so one file is enough, and ONNX Runtime can run it too;
    NNCF chooses ranges and rounding points for OpenVINO's kernels.

    Raises:
        CompressError: OpenVINO or NNCF is not installed.
    """
    nncf = import_nncf()

    def view(place: int) -> dict[str, Any]:
        return {INPUT: normalised_views(images, [place], backbone.spec).contiguous().numpy()}

    def round_but(float_layers: Sequence[str]) -> onnx.ModelProto:
        copied = onnx.ModelProto()
        copied.CopyFrom(onnx.shape_inference.infer_shapes(model))
        ignored = nncf.IgnoredScope(names=nodes_of(model, float_layers)) if float_layers else None
        seen = nncf.Dataset(list(places), view)
        with _silent():
            quantized: onnx.ModelProto = nncf.quantize(
                copied, seen, preset=nncf.QuantizationPreset.MIXED, subset_size=len(places), ignored_scope=ignored
            )
        sort_nodes(quantized.graph)
        del quantized.graph.value_info[:]
        del quantized.metadata_props[:]
        return quantized

    return round_but


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """NNCF's bars would come among the results, and torch's extensions, which it imports here, tell there is no GPU."""
    extensions = logging.getLogger("torch.utils.cpp_extension")
    level = extensions.level
    extensions.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        extensions.setLevel(level)


def import_nncf() -> Any:
    """The package, which is an extra. Raises CompressError where it or OpenVINO is missing."""
    import_openvino()
    os.environ.setdefault("NNCF_CI", "1")  # without it NNCF reports over the network that it is used
    try:
        import nncf
    except ImportError:
        raise CompressError("NNCF is not installed: pip install 'prunecore[openvino]'") from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf
