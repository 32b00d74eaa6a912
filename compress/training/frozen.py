"""A network that others are trained against, and that stays as it is."""

from __future__ import annotations

import copy

import torch

from compress.backbone import Backbone


def frozen(teacher: Backbone, device: torch.device) -> Backbone:
    """A copy of `teacher` on `device`, in float32 and evaluation mode, whose parameters have no gradients."""
    twin = copy.deepcopy(teacher).float().to(device).to(memory_format=torch.channels_last).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin
