"""From a float graph and the ranges of its values to an int8 graph, rounded where ONNX Runtime has integer kernels."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from compress.quantization.affine import Range

# What ONNX Runtime computes in integers. HardSwish, HardSigmoid, means and norms stay float between two roundings.
OPERATORS = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Mul", "Relu"}
)
_LEAST = "prunecore_least"


def rounded(model: onnx.ModelProto, ranges: Mapping[str, Range], float_nodes: Collection[str] = ()) -> onnx.ModelProto:
    """`model` with QuantizeLinear and DequantizeLinear (QDQ) at every activation of an integer kernel.

    Activations are asymmetric uint8, one scale a tensor; weights symmetric int8, one scale an output channel;
    biases int32 with the scale s_input s_weight. See `affine` for the formulas.

    Args:
        ranges: of every value of `model`.
        float_nodes: names of nodes that stay float.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(onnx.shape_inference.infer_shapes(model))
    bounds = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()
    }
    quantizer = QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, bounds),
        nodes_to_quantize=[],
        nodes_to_exclude=list(float_nodes),
        op_types_to_quantize=sorted(OPERATORS),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    logging.disable(logging.WARNING)  # it counsels a preparation that the export has done
    try:
        quantized: onnx.ModelProto = quantizer.quantize_model()
    finally:
        logging.disable(logging.NOTSET)
    _guard_float_layers(quantized, float_nodes)
    sort_nodes(quantized.graph)
    del quantized.graph.value_info[:]
    del quantized.metadata_props[:]
    quantized.producer_name, quantized.producer_version = "prunecore", ""
    return quantized


def _guard_float_layers(model: onnx.ModelProto, float_nodes: Collection[str]) -> None:
    """Keep ONNX Runtime from rounding the weights of a float layer between two integer ones as it loads the model.

    Its WeightBiasQuantization does so, with one scale for all channels, where a layer's input comes straight out of
    DequantizeLinear. A clip that clips nothing in between stops it, and costs one pass over the input.
    """
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    guards = []
    for node in model.graph.node:
        if node.name in float_nodes and node.op_type in ("Conv", "Gemm") and node.input[0] in dequantized:
            guarded = f"{node.input[0]}_for_{node.name}"
            guards.append(onnx.helper.make_node("Clip", [node.input[0], _LEAST], [guarded], f"{node.name}/guard"))
            node.input[0] = guarded
    if guards:
        least = np.array(np.finfo(np.float32).min / 2, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(least, _LEAST))
        model.graph.node.extend(guards)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node behind those that it reads, as ONNX demands; quantizers append theirs at the end."""
    known = {value.name for value in (*graph.initializer, *graph.input)} | {""}
    waiting, ordered = list(graph.node), []
    while ready := [node for node in waiting if known.issuperset(node.input)]:
        known |= {value for node in ready for value in node.output}
        ordered += ready
        waiting = [node for node in waiting if not known.issuperset(node.output)]
    del graph.node[:]
    graph.node.extend([*ordered, *waiting])
