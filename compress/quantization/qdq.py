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
OPERATORS = ("Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Mul", "Relu")


def rounded(model: onnx.ModelProto, ranges: Mapping[str, Range], float_nodes: Collection[str] = ()) -> onnx.ModelProto:
    """`model` with a pair QuantizeLinear, DequantizeLinear (QDQ) at every activation that an integer kernel reads or writes.

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
        op_types_to_quantize=list(OPERATORS),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    logging.disable(logging.WARNING)  # it counsels a preparation that the export has done
    try:
        quantized = quantizer.quantize_model()
    finally:
        logging.disable(logging.NOTSET)
    del quantized.graph.value_info[:]
    del quantized.metadata_props[:]
    quantized.producer_name, quantized.producer_version = "prunecore", ""
    return quantized
