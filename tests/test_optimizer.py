"""Muon for convolutions, AdamW for the rest: against hand-made matrices and torch's own AdamW."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.training.optimizer import Optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)
    )


def gradients(module: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_moves_along_a_nearly_orthogonal_matrix(layout: torch.memory_format) -> None:
    """Without a past, Muon's step is U V^T of the gradient G = U S V^T, scaled by 0.2 sqrt(larger side)."""
    module = network().to(memory_format=layout)
    before = copy.deepcopy(module)
    gradients(module)
    gradient = module[0].weight.grad.flatten(1).clone()  # type: ignore[union-attr,operator,index]
    Optimizer(module, "muon", weight_decay=0.0).step(0.1)
    moved = (before[0].weight - module[0].weight).detach().flatten(1) / (0.1 * 0.2 * 27**0.5)  # type: ignore[index]
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    values = torch.linalg.svdvals(moved)
    assert 0.5 < values.min() <= values.max() < 1.5  # Newton-Schulz brings the singular values near 1, not to it
    assert torch.nn.functional.cosine_similarity(moved.flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_the_rest_goes_by_adamw() -> None:
    """Depthwise convolutions and norms, whose steps must be torch's own."""
    module = network()
    twin = copy.deepcopy(module)
    ours, reference = (
        Optimizer(module, "muon", weight_decay=0.1),
        torch.optim.AdamW(twin.parameters(), 0.1, weight_decay=0.1),
    )
    for step in range(3):
        gradients(module, step)
        gradients(twin, step)
        ours.step(0.1)
        reference.step()
    for place in (1, 2):
        for own, other in zip(module[place].parameters(), twin[place].parameters(), strict=True):  # type: ignore[index]
            torch.testing.assert_close(own, other)
    assert not torch.allclose(module[3].weight, twin[3].weight)  # type: ignore[index]
    torch.testing.assert_close(module[3].bias, twin[3].bias)  # type: ignore[index]


def test_adamw_alone_steps_everything() -> None:
    module = network()
    twin = copy.deepcopy(module)
    gradients(module)
    gradients(twin)
    Optimizer(module, "adamw", weight_decay=0.0).step(0.1)
    torch.optim.AdamW(twin.parameters(), 0.1, weight_decay=0.0).step()
    for own, other in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("name", ["muon", "adamw"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_restored_optimizer_goes_on_bit_for_bit(name: str, layout: torch.memory_format) -> None:
    module = network().to(memory_format=layout)
    first = Optimizer(module, name, weight_decay=0.01)
    gradients(module, 1)
    first.step(0.1)
    state = {key: tensor.clone() for key, tensor in first.state().items()}
    twin = copy.deepcopy(module)
    second = Optimizer(twin, name, weight_decay=0.01)
    second.restore(state)
    for own, optimizer in ((module, first), (twin, second)):
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in own.parameters())
        gradients(own, 2)
        optimizer.step(0.1)
    for one, other in zip(module.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
