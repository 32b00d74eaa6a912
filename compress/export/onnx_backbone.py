"""A backbone that another runtime computes, used like any other: a normalised batch in, a list of maps out."""

from __future__ import annotations

import hashlib
import os

import onnx
import torch
from torch import Tensor, nn

from compress.backbone import BackboneSpec
from compress.cost import Cost
from compress.errors import CompressError
from compress.export.header import Header, labelled, read_model
from compress.export.runtimes import open_model
from compress.feature_info import FeatureInfo, reduction
from compress.files import atomic_write


class OnnxBackbone(nn.Module):
    """An ONNX model of ours in the place of a `Backbone`.

    Calling it with a float batch (N, 3, S, S), S = spec.size, normalised with `mean` and `std`, gives a list of float32
    maps (N, C_i, H_i, W_i), one per tap, shallow first. It has no parameters and nothing to train.

    Args:
        threads: that one operator computes with; by default as many as torch has now.
        runtime: a key of `RUNTIMES`; by default the one that the model was made for.

    Attributes:
        model: the ONNX model, without its header; not to be changed.
        header: what the model says about itself.
        content: the bytes of its file.

    Raises:
        CompressError: the runtime is missing or cannot run the model, or the outputs are not the header's taps.
    """

    def __init__(
        self, model: onnx.ModelProto, header: Header, *, threads: int | None = None, runtime: str | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.header = header
        self.content = labelled(model, header)
        self.runtime = runtime or header.runtime
        self.feature_info = _described(model, header.spec)
        self.threads = torch.get_num_threads() if threads is None else threads
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps of a normalised batch, on the CPU."""
        side = self.spec.size
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, side, side):
            raise CompressError(f"this backbone takes images (N, 3, {side}, {side}), not {tuple(x.shape)}")
        images = x.detach().cpu().float().contiguous().numpy()
        return [torch.from_numpy(found) for found in self._run(images)]

    def get_extra_state(self) -> Tensor:
        """What tells one from another in `state_dict`: the SHA-256 of its runtime and its file, uint8 (32,)."""
        digest = hashlib.sha256(f"{self.runtime}\0".encode() + self.content).digest()
        return torch.tensor(list(digest), dtype=torch.uint8)

    @property
    def threads(self) -> int:
        """Threads that one operator computes with; setting it starts the runtime again."""
        return self._threads

    @threads.setter
    def threads(self, count: int) -> None:
        self._run = open_model(self.content, self.runtime, threads=count)
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
    def file_bytes(self) -> int:
        """Size of its file."""
        return len(self.content)

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of RGB in [0, 1] that inputs are normalised with."""
        return self.spec.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of RGB in [0, 1] that inputs are normalised with."""
        return self.spec.std


def save_onnx(backbone: OnnxBackbone, path: str | os.PathLike[str]) -> None:
    """Write `backbone` to `path`, whole or not at all.

    Raises:
        CompressError: `path` cannot be written.
    """
    atomic_write(path, backbone.content)


def load_onnx(path: str | os.PathLike[str], *, threads: int | None = None, runtime: str | None = None) -> OnnxBackbone:
    """The backbone in an ONNX file that `export_onnx` or `save_onnx` wrote; for the rest see `OnnxBackbone`.

    Raises:
        CompressError: the file is missing, truncated, edited, foreign or of a newer format, or the runtime
            is missing or cannot run it.
    """
    model, header = read_model(path)
    try:
        return OnnxBackbone(model, header, threads=threads, runtime=runtime)
    except CompressError as error:
        raise CompressError(f"{path}: {error}") from error


def _described(model: onnx.ModelProto, spec: BackboneSpec) -> FeatureInfo:
    shapes = {
        output.name: [dimension.dim_value for dimension in output.type.tensor_type.shape.dim]
        for output in model.graph.output
    }
    if tuple(shapes) != spec.taps or any(len(shape) != 4 or min(shape[1:]) < 1 for shape in shapes.values()):
        raise CompressError(f"the model's outputs {list(shapes)} are not maps of the taps {', '.join(spec.taps)}")
    reductions = [reduction(spec.size, shape[-1]) for shape in shapes.values()]
    return FeatureInfo(spec.taps, [shape[1] for shape in shapes.values()], reductions)
