"""A backbone that ONNX Runtime computes, used like any other: a normalised batch in, a list of maps out."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, NotImplemented
from torch import Tensor, nn

from compress.backbone import BackboneSpec, FeatureInfo
from compress.cost import Cost
from compress.errors import CompressError
from compress.export.graph import INPUT
from compress.export.header import Header, read_model

_REFUSED = (Fail, InvalidArgument, InvalidGraph, NotImplemented)


class OnnxBackbone(nn.Module):
    """An ONNX model of ours in the place of a `Backbone`.

    Calling it with a float batch (N, 3, S, S), S = spec.size, normalised with `mean` and `std`, gives a list of float32
    maps (N, C_i, H_i, W_i), one per tap, shallow first. It has no parameters and nothing to train.

    Attributes:
        header: what the file says about itself.
        file_bytes: size of the file.
    """

    def __init__(self, model: onnx.ModelProto, header: Header, *, file_bytes: int, threads: int | None = None) -> None:
        super().__init__()
        self.header = header
        self.file_bytes = file_bytes
        self._model = model.SerializeToString()
        self.threads = torch.get_num_threads() if threads is None else threads
        self.feature_info = self._described()
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps of a normalised batch, on the CPU."""
        side = self.spec.size
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, side, side):
            raise CompressError(f"this backbone takes images (N, 3, {side}, {side}), not {tuple(x.shape)}")
        images = x.detach().cpu().float().contiguous().numpy()
        return [torch.from_numpy(found) for found in self._session.run(None, {INPUT: images})]

    @property
    def threads(self) -> int:
        """Threads that one operator computes with; setting it starts a new session."""
        return self._threads

    @threads.setter
    def threads(self, count: int) -> None:
        self._session = open_session(self._model, threads=count)
        self._threads = count

    @property
    def spec(self) -> BackboneSpec:
        """That of the backbone that this one was made from."""
        return self.header.spec

    @property
    def precision(self) -> str:
        """`fp32` or `int8`."""
        return self.header.precision

    @property
    def cost(self) -> Cost:
        """Parameters and MACs; quantization leaves both as they were."""
        return self.header.cost

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of RGB in [0, 1] that inputs are normalised with."""
        return self.spec.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of RGB in [0, 1] that inputs are normalised with."""
        return self.spec.std

    def _described(self) -> FeatureInfo:
        outputs = self._session.get_outputs()
        if tuple(output.name for output in outputs) != self.spec.taps:
            raise CompressError(f"the model's outputs {[output.name for output in outputs]} are not {self.spec.taps}")
        reductions = [2 ** round(math.log2(self.spec.size / output.shape[-1])) for output in outputs]
        return FeatureInfo(self.spec.taps, [output.shape[1] for output in outputs], reductions)


def load_onnx(path: str | os.PathLike[str], *, threads: int | None = None) -> OnnxBackbone:
    """The backbone in an ONNX file that `export_onnx` or `quantize` wrote.

    Args:
        threads: that one operator computes with; by default as many as torch has now.

    Raises:
        CompressError: the file is missing, truncated, edited, foreign or of a newer format, or ONNX Runtime
            cannot run it.
    """
    model, header = read_model(path)
    try:
        return OnnxBackbone(model, header, file_bytes=Path(path).stat().st_size, threads=threads)
    except CompressError as error:
        raise CompressError(f"{path}: {error}") from error


def open_session(model: bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """ONNX Runtime on the CPU, with all its fusions.

    Raises:
        CompressError: fewer than 1 thread, or a model that it cannot run.
    """
    if threads < 1:
        raise CompressError(f"{threads} threads compute nothing: give at least 1")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; what it warns of is how it optimises
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _REFUSED as error:
        told = " ".join(str(error).split())[:300]
        raise CompressError(f"ONNX Runtime {onnxruntime.__version__} cannot run it ({told})") from error


def run(session: onnxruntime.InferenceSession, images: Tensor) -> list[np.ndarray]:
    """All outputs of `session` for a normalised batch."""
    found: list[np.ndarray] = session.run(None, {INPUT: images.contiguous().numpy()})
    return found
