"""Muon: momentum whose every step is a nearly orthogonal matrix (Jordan 2024)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from compress.precision import bfloat16_pays

MOMENTUM = 0.95
SIZE = 0.2  # of a step per rate, as a root mean square: that of AdamW (Liu 2025, arXiv 2502.16982, section 2.2)
COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic, chosen by Jordan for its slope at zero
ITERATIONS = 5
_LEAST_NORM = 1e-7
_LEAST_RMS = 1e-3  # of a weight, when its step is a share of it: one that is all zeros moves too


class Muon(torch.optim.Optimizer):
    """Steps matrices along their Nesterov momentum, made nearly orthogonal.

    The step has the size of AdamW's, 0.2 sqrt(larger side) times the rate (Liu 2025, arXiv 2502.16982, eq. 4). The
    same as `torch.optim.Muon(..., adjust_lr_fn="match_rms_adamw")`, which multiplies in bfloat16 everywhere: a
    processor without instructions for it takes more than ten times as long for that as for float32.

    A relative step has the size of the matrix instead, times the rate (the trust ratio of LARS, You 2017,
    arXiv 1708.03888, eq. 6). A weight in front of a norm has no scale of its own: one that training left eight times as
    large computes the same and would move an eighth as far.

    Args:
        matrices: float32, of two dimensions each.
        weight_decay: decoupled, at least 0.
        relative: whether steps are relative.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], *, weight_decay: float, relative: bool = False) -> None:
        super().__init__(matrices, {"lr": 1e-3, "weight_decay": weight_decay, "relative": relative})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step down the gradients; a matrix without one stays."""
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
                direction = orthogonal(matrix.grad.lerp(momentum, MOMENTUM))
                size = _root_mean_square(matrix).clamp(min=_LEAST_RMS) if group["relative"] else SIZE
                matrix.mul_(1 - rate * decay).sub_(direction * (size * rate * max(matrix.shape) ** 0.5))


def orthogonal(matrix: Tensor) -> Tensor:
    """U S' V^T of `matrix` = U S V^T, float32 (M, N).

    S' lies between 0.68 and 1.2 where S is above 0.0015 of the Frobenius norm; what is weaker stays small. By Newton
    and Schulz's iteration X <- (a + b A + c A^2) X with A = X X^T.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonal(matrix.mT).mT
    a, b, c = COEFFICIENTS
    x: Tensor = matrix / matrix.norm().clamp(min=_LEAST_NORM)
    if bfloat16_pays(matrix.device):
        x = x.bfloat16()
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()


def _root_mean_square(matrix: Tensor) -> Tensor:
    return matrix.square().mean().sqrt()
