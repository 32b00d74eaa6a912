"""ONNX Runtime on the CPU, quiet: what goes wrong comes as an exception, and is told once."""

from __future__ import annotations

import onnxruntime


def open_session(model: bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session of a serialised ONNX model, with all of ONNX Runtime's fusions.

    Args:
        threads: that compute one operator; by default one for each core.

    Raises:
        Exception: it cannot be run; the classes are made at run time, one for each status.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: errors come as exceptions, and would be told twice
    if threads is not None:
        options.intra_op_num_threads = threads
    # Its fallback tries the same again, and prints so to stdout, where scores go.
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
