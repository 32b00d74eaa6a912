"""Building without drawing: faster, and nothing of it may be seen in what is loaded."""

from __future__ import annotations

import torch
from torch import nn

import compress
from compress.blank import BlankWeights


def test_fresh_weights_are_zeros_and_the_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    with BlankWeights():
        layer, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert not layer.weight.any()
    assert norm.weight.eq(1).all()  # constants are no draws
    assert nn.Conv2d(3, 4, 3).weight.any()


def test_a_slim_backbone_holds_its_parents_weights_and_no_blanks(resnet18: compress.Backbone) -> None:
    same = compress.prune(resnet18, ratio=0)
    assert all(torch.equal(own, tensor) for own, tensor in zip(same.parameters(), resnet18.parameters(), strict=True))
