"""Batch norms folded into convolutions: the same maps, and only where nobody else reads what the convolution makes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import compress
from compress.networks.folding import fold_batch_norms

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def randomised(network: nn.Module) -> nn.Module:
    """With statistics and weights in its norms as a trained network has, in evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)  # type: ignore[union-attr]
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
@torch.no_grad()
def test_no_norm_is_left_and_the_maps_stay(name: str) -> None:
    backbone = compress.create_backbone(name, weights="none")
    randomised(backbone)
    expected = backbone(IMAGES)
    fold_batch_norms(backbone.trunk, lambda: backbone(IMAGES))
    assert norms(backbone) == 0
    for own, other in zip(backbone(IMAGES), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


class Peculiar(nn.Module):
    """A convolution and its norm, and somebody else who reads the convolution."""

    def __init__(self, other: str) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.other = other

    def forward(self, x: Tensor) -> list[Tensor]:
        raw = self.conv(x)
        normed = self.norm(raw)
        if self.other == "module":
            return [normed + self.act(raw)]
        if self.other == "code":
            return [normed + raw]
        if self.other == "twice":
            return [self.norm(self.act(normed))]
        return [normed]


@pytest.mark.parametrize("other", ["module", "code", "twice", "nobody"])
@torch.no_grad()
def test_a_norm_that_does_not_read_alone_stays(other: str) -> None:
    network = randomised(Peculiar(other))
    (expected,) = network(IMAGES)
    fold_batch_norms(network, lambda: network(IMAGES))
    assert norms(network) == (other != "nobody")
    torch.testing.assert_close(network(IMAGES)[0], expected)


@pytest.mark.parametrize("kept", ["conv", "norm"])
def test_what_somebody_listens_at_stays(kept: str) -> None:
    network = randomised(Peculiar("nobody"))
    fold_batch_norms(network, lambda: network(IMAGES), keep={kept})
    assert norms(network) == 1


def test_a_norm_that_learns_or_takes_the_batchs_statistics_stays() -> None:
    network = randomised(Peculiar("nobody"))
    network.norm.train()  # type: ignore[union-attr,operator]
    fold_batch_norms(network, lambda: network(IMAGES))
    assert norms(network) == 1
    network.norm = nn.BatchNorm2d(4, track_running_stats=False).eval()
    fold_batch_norms(network, lambda: network(IMAGES))
    assert norms(network) == 1
