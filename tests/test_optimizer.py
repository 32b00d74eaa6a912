"""Muon for convolutions, AdamW for the rest: against hand-made matrices and torch's own optimizers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.training.muon import Muon, orthogonal
from compress.training.optimizer import OPTIMIZERS, Optimizer


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


@pytest.mark.parametrize("shape", [(6, 27), (40, 12), (8, 8)])
def test_muon_is_torchs_but_for_its_rounding(shape: tuple[int, int]) -> None:
    """torch.optim.Muon iterates in bfloat16, which has 8 bits."""
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    own = Muon([ours], weight_decay=0.1)
    peer = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    own.param_groups[0]["lr"] = 0.02
    for _ in range(5):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        own.step()
        peer.step()
    moved, expected = (each.detach() - 1 for each in (ours, theirs))
    assert (moved - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_gradient_of_low_rank_moves_its_own_directions_alone(
    rank: int, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a float32 product rounds to instead of 0 must not grow with the iteration."""
    monkeypatch.setattr("compress.training.muon.bfloat16_pays", lambda device: False)
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(side, side))[0][:, :rank] for side in shape)
    values = torch.linalg.svdvals(orthogonal(left @ torch.diag(torch.rand(rank) + 0.1) @ right.T))
    assert ((values[:rank] > 0.6) & (values[:rank] < 1.3)).all()
    assert (values[rank:] < 0.01).all()


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


def test_a_relative_step_is_a_share_of_the_weight() -> None:
    """A weight in front of a norm has no scale of its own: eight times as large, it moves eight times as far."""
    module = network()
    larger = copy.deepcopy(module)
    with torch.no_grad():
        larger[0].weight *= 8  # type: ignore[index,operator]
    moves = []
    for each in (module, larger):
        before = each[0].weight.detach().clone()  # type: ignore[index,operator]
        gradients(each)
        Optimizer(each, "relative_muon", weight_decay=0.0).step(0.1)
        moves.append((each[0].weight.detach() - before) / before.norm())  # type: ignore[index]
    torch.testing.assert_close(moves[1], moves[0])
    assert 0.07 < moves[0].norm() < 0.12  # the rate, but for what Newton-Schulz leaves of the singular values


def test_a_convolution_of_zeros_moves_by_a_relative_step_too() -> None:
    module = network()
    nn.init.zeros_(module[0].weight)  # type: ignore[index,arg-type]
    gradients(module)
    Optimizer(module, "relative_muon", weight_decay=0.0).step(0.1)
    assert module[0].weight.detach().square().mean().sqrt() == pytest.approx(1e-4, rel=0.3)  # type: ignore[index,operator]


@pytest.mark.parametrize(("name", "share"), [("muon", 1.0), ("relative_muon", 0.3)])
def test_what_is_no_dense_convolution_has_its_own_rate(name: str, share: float) -> None:
    module = network()
    twin = copy.deepcopy(module)
    gradients(module)
    gradients(twin)
    Optimizer(module, name, weight_decay=0.0).step(0.1)
    torch.optim.AdamW(twin.parameters(), share * 0.1, weight_decay=0.0).step()
    for place in (1, 2):
        for own, other in zip(module[place].parameters(), twin[place].parameters(), strict=True):  # type: ignore[index]
            torch.testing.assert_close(own, other)


def test_adamw_alone_steps_everything() -> None:
    module = network()
    twin = copy.deepcopy(module)
    gradients(module)
    gradients(twin)
    Optimizer(module, "adamw", weight_decay=0.0).step(0.1)
    torch.optim.AdamW(twin.parameters(), 0.1, weight_decay=0.0).step()
    for own, other in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("name", OPTIMIZERS)
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
