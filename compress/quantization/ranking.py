"""Which layers int8 hurts: the error of the maps when one layer alone is rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.export.parity import relative_error
from compress.export.runtimes import open_model
from compress.progress import Track, quiet


class LayerError(NamedTuple):
    """The error of the maps when `layer` alone is int8: the largest relative error of any tap."""

    layer: str
    error: float

    @property
    def sqnr(self) -> float:
        """Signal over quantization noise in dB: -20 log10(error)."""
        return -20 * math.log10(max(self.error, 1e-12))


def map_error(reference: Sequence[NDArray[np.float32]], maps: Sequence[NDArray[np.float32]]) -> float:
    """The largest relative error ||f - q|| / ||f|| of any tap's map."""
    return max(relative_error(one, other) for one, other in zip(reference, maps, strict=True))


def maps_of(model: onnx.ModelProto, images: Tensor) -> list[NDArray[np.float32]]:
    """Each tap's map for a normalised batch."""
    return open_model(model.SerializeToString(), threads=torch.get_num_threads())(images.contiguous().numpy())


def rank_layers(
    layers: Sequence[str],
    rounded_but: Callable[[Sequence[str]], onnx.ModelProto],
    reference: Sequence[NDArray[np.float32]],
    images: Tensor,
    *,
    track: Track = quiet,
) -> list[LayerError]:
    """`layers` by the error that each brings alone, the worst first.

    Args:
        rounded_but: makes the model in which all layers but the given ones are int8.
        reference: the float maps of `images`, a normalised batch.
    """
    errors = []
    for layer in track(layers, "error of each layer", len(layers)):
        alone = rounded_but([other for other in layers if other != layer])
        errors.append(LayerError(layer, map_error(reference, maps_of(alone, images))))
    return sorted(errors, key=lambda each: -each.error)
