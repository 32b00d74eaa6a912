"""What the processor that runs the tests can do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 16


def _adds_int8_exactly() -> bool:
    """Whether ONNX Runtime's largest sum of products, all inputs 255 and all weights 127, comes out as it is."""
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weight": np.full((1, CHANNELS, 1, 1), 127, np.int8),
        "weight_zero": np.int8(0),
        "sum_scale": np.float32(CHANNELS * 127),  # the sum is 255 of these
    }
    inputs = ("image", "one", "zero", "weight", "one", "weight_zero", "sum_scale", "zero")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["image"], to=TensorProto.UINT8),
            helper.make_node("QLinearConv", inputs, ["sum"]),
            helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
        ],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((1, CHANNELS, 8, 8), 255, np.float32)})
    return bool((found == 255).all())


needs_exact_int8 = pytest.mark.skipif(
    not _adds_int8_exactly(),
    reason="ONNX Runtime adds products of 8 bits in 16 here, which saturates (docs/quantization.md, Limits)",
)
