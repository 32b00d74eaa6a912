"""A convolution over blocks adds the products that one over pixels adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from compress.quantization.blocks import Side, blocked_filters, blocked_side


def test_filters_by_hand() -> None:
    """A filter of 3 pixels that begins one pixel before a block: a zero is put before it, and 2 blocks hold the 4."""
    assert blocked_side(4, Side(3, 1, 1), stride=2, block=2) == (1, Side(length=2, before=1, behind=0))
    filters = np.array([[[[1.0, 2.0, 3.0]]]])
    # With one row of pixels a block has its second row empty: channels are (y, x) = (0, 0), (0, 1), (1, 0), (1, 1).
    found = blocked_filters(filters, 2, (0, 1), (1, 2))
    assert found.tolist() == [[[[0, 2]], [[1, 3]], [[0, 0]], [[0, 0]]]]


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("before", [0, 1, 2, 3])
@pytest.mark.parametrize("behind", [0, 1, 3])
def test_it_is_the_same_convolution(stride: int, length: int, before: int, behind: int) -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(1, 3, 12, 24)))
    filters = rng.normal(size=(2, 3, length, length))
    side = Side(length, before, behind)
    expected = F.conv2d(F.pad(image, [before, behind] * 2), torch.from_numpy(filters), stride=stride)
    (top, rows), (left, columns) = (blocked_side(size, side, stride, stride) for size in (12, 24))
    over_blocks = blocked_filters(filters, stride, (top, left), (rows.length, columns.length))
    # pixel_unshuffle orders channels the other way round: c b b, where SpaceToDepth has b b c
    blocks = F.pixel_unshuffle(image, stride).unflatten(1, (3, -1)).transpose(1, 2).flatten(1, 2)
    padded = F.pad(blocks, [columns.before, columns.behind, rows.before, rows.behind])
    found = F.conv2d(padded, torch.from_numpy(over_blocks))
    torch.testing.assert_close(found, expected)
