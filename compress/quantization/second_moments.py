"""E[x x^T] of what the filters of each convolution see, over a stream of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import NodeProto
from torch import Tensor

from compress.backbone import BackboneSpec
from compress.export.graph import attribute
from compress.progress import Track, quiet
from compress.quantization.streaming import spread, stream

IMAGES = 32  # at most, spread evenly: 8,192 inputs, and a filter of a ResNet-18 has 2,304 weights
_POSITIONS = 256  # of an image at most, spread evenly: neighbours see much the same


def second_moments(
    model: onnx.ModelProto, spec: BackboneSpec, images: Sequence[Any], places: Sequence[int], *, track: Track = quiet
) -> dict[str, NDArray[np.float64]]:
    """(G, K, K) for each convolution with constant weights (C_out, K / (h w), h, w) and G groups, by the weights' name.

    Those of a convolution that runs twice are added up. Memory holds K x K x 4 bytes for each group and layer, 110 MB
    for a ResNet-18, whatever the number of images.

    Args:
        images: uint8 RGB (3, H, W); `images[place]` is read for some of `places`.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in shapes]
    inputs = list(dict.fromkeys(str(node.input[0]) for node in convolutions))
    some = spread(places, IMAGES)
    sums: dict[str, Tensor] = {}
    for values in stream(model, inputs, spec, images, some, title="second moments", track=track):
        for node in convolutions:
            name, read = str(node.input[1]), values[node.input[0]]
            seen = patches(torch.from_numpy(read), node, shapes[name])
            positions = seen.shape[2] // len(read) * len(some)
            sums[name] = sums.get(name, 0) + seen @ seen.mT / positions
    return {name: total.double().numpy() for name, total in sums.items()}


def patches(values: Tensor, node: NodeProto, shape: Sequence[int]) -> Tensor:
    """What the filters of `node` see of values (N, C, H, W), at some positions: (G, K, positions).

    Args:
        shape: (C_out, C / G, h, w) of its weights.
    """
    top, left, bottom, right = attribute(node, "pads", [0] * 4)
    windows = F.pad(values, (left, right, top, bottom))
    strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    columns = F.unfold(windows, tuple(shape[2:]), dilation=tuple(dilations), stride=tuple(strides))
    columns = columns[:, :, :: -(-columns.shape[2] // _POSITIONS)]
    size = int(np.prod(shape[1:]))
    by_group: Tensor = columns.reshape(len(values), -1, size, columns.shape[2])
    return by_group.permute(1, 2, 0, 3).flatten(2)
