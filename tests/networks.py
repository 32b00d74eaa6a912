"""Networks as tests need them: the smallest backbone, and whether two are the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pixels(nn.Module):
    """The smallest backbone: two maps of averaged pixels, at strides 8 and 16."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(x, 8), F.avg_pool2d(x, 16)[:, :1]]


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether both have the same tensors."""
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
