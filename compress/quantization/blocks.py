"""A convolution with a stride, over few channels, as one with stride 1 over blocks of pixels, which runs faster.

SpaceToDepth (the ONNX operator) lays the b x b pixels of a block behind each other, as channels. A filter that moves by
b pixels moves by one block, so with its weights in the same order it adds the same products. Integer kernels gather
what a filter sees row by row: a row of 7 pixels with 3 channels is 21 bytes, too few to be worth the call; a row of 4
blocks with 16 channels is 64. That made the first convolution of a ResNet-18 take half of its time, although the
filters grow from 7 x 7 to 8 x 8 pixels, with zeros.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Side(NamedTuple):
    """How a filter moves along one side of an image: its length, and the zeros added before and behind."""

    length: int
    before: int
    behind: int


def blocked_side(size: int, own: Side, stride: int, block: int) -> tuple[int, Side]:
    """How many zeros to put before the filter's weights, and how the filter over blocks moves, by stride / block.

    The filter's first position, -before, must be the start of a block: it begins (-before) mod block earlier. The last
    one is where it was: (size + before + behind - length) // stride steps on.

    Args:
        size: of the image along this side, a multiple of `block`.
        block: divides `stride`.
    """
    shift = -own.before % block
    length = -(-(shift + own.length) // block)
    before = (own.before + shift) // block
    steps = (size + own.before + own.behind - own.length) // stride
    behind = max(0, steps * (stride // block) + length - before - size // block)
    return shift, Side(length, before, behind)


def blocked_filters(
    filters: NDArray[np.float64], block: int, shifts: tuple[int, int], lengths: tuple[int, int]
) -> NDArray[Any]:
    """Filters (O, C, h, w) over pixels as (O, b b C, *lengths) over blocks, in SpaceToDepth's order of channels.

    Channel (b y + x) C + c of a block is channel c of its pixel (y, x).
    """
    outputs, channels, height, width = filters.shape
    (top, left), (rows, columns) = shifts, lengths
    whole = np.zeros((outputs, channels, rows * block, columns * block))
    whole[:, :, top : top + height, left : left + width] = filters
    apart = whole.reshape(outputs, channels, rows, block, columns, block)
    return apart.transpose(0, 3, 5, 1, 2, 4).reshape(outputs, block * block * channels, rows, columns)
