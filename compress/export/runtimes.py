"""What runs an exported model: ONNX Runtime, or OpenVINO where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from compress.errors import CompressError, unknown
from prunecore_runtime.session import open_session

Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]


def open_onnxruntime(model: bytes, threads: int) -> Run:
    """ONNX Runtime on the CPU, with all its fusions.

    Raises:
        CompressError: it cannot run the model.
    """
    try:
        session = open_session(model, threads)
    except Exception as error:
        raise _refused("run it", error) from error
    names = [each.name for each in session.get_inputs()]
    if len(names) != 1:
        raise CompressError(f"the model takes {len(names)} inputs, and ours take one: export the backbone again")

    def run(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        try:
            found: list[NDArray[np.float32]] = session.run(None, {names[0]: images})
        except Exception as error:
            raise _refused(f"compute images {images.shape}", error) from error
        return found

    return run


def _refused(what: str, error: Exception) -> CompressError:
    told = " ".join(str(error).split())[:300]
    return CompressError(f"ONNX Runtime {onnxruntime.__version__} cannot {what} ({told})")


def open_openvino(model: bytes, threads: int) -> Run:
    """OpenVINO on the CPU, compiled for one image at a time to be quick.

    Raises:
        CompressError: it is not installed, or cannot run the model.
    """
    openvino = import_openvino()
    try:
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(model), "CPU", settings)
    except RuntimeError as error:
        told = " ".join(str(error).split())[:300]
        raise CompressError(f"OpenVINO {openvino.__version__} cannot run it ({told})") from error

    def run(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found = compiled(images)
        return [np.array(found[port]) for port in compiled.outputs]  # a copy: the next run reuses the memory

    return run


def import_openvino() -> Any:
    """The package, which is an extra. Raises CompressError where it is missing."""
    try:
        import openvino
    except ImportError:
        raise CompressError("OpenVINO is not installed: pip install 'prunecore[openvino]'") from None
    return openvino


RUNTIMES: dict[str, Callable[[bytes, int], Run]] = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def open_model(model: bytes, runtime: str = "onnxruntime", *, threads: int = 1) -> Run:
    """A function from a normalised batch (N, 3, S, S) to the model's outputs.

    Raises:
        CompressError: a runtime that is unknown or missing, fewer than 1 thread, or a model that it cannot run.
    """
    if threads < 1:
        raise CompressError(f"{threads} threads compute nothing: give at least 1")
    if runtime not in RUNTIMES:
        raise unknown("runtime", runtime, RUNTIMES, "the file may be of a newer version")
    return RUNTIMES[runtime](model, threads)
