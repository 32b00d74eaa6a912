"""Muon: momentum whose every step is an orthogonal matrix (Jordan 2024), with less arithmetic than torch.optim.Muon."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic, chosen by Jordan for its slope at zero
ITERATIONS = 5
_LEAST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Steps matrices along the orthogonal matrix nearest to their Nesterov momentum.

    The step has the size of AdamW's, 0.2 sqrt(larger side) times the rate (Liu 2025, arXiv 2502.16982, eq. 4). The
    same as `torch.optim.Muon(..., adjust_lr_fn="match_rms_adamw")`, but for `orthogonal`: that one multiplies in
    bfloat16, which a processor without instructions for it takes ten times as long for as for float32.

    Args:
        matrices: of two dimensions each.
        weight_decay: decoupled, at least 0.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], *, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": 1e-3, "weight_decay": weight_decay})

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
                matrix.mul_(1 - rate * decay).add_(direction, alpha=-rate * 0.2 * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """U S' V^T of `matrix` = U S V^T, float32 (M, N), with all of S' between about 0.7 and 1.2.

    Newton and Schulz's iteration, X <- (a + b A + c A^2) X with A = X X^T. The factors are polynomials in the first A:
    they commute, are gathered in one small matrix (M, M), M <= N, and X is multiplied once, at the end.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonal(matrix.mT).mT
    a, b, c = COEFFICIENTS
    start = matrix / matrix.norm().clamp(min=_LEAST_NORM)
    gram = start @ start.mT
    whole = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(ITERATIONS):
        reached = whole @ gram @ whole  # the A of this step; all of these are symmetric
        factor = torch.addmm(reached, reached, reached, beta=b, alpha=c)
        factor.diagonal().add_(a)
        whole = factor @ whole
    return torch.mm(whole, start)
