"""A plain image classifier: a backbone, the mean of its last map, one linear layer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from compress.backbone import Backbone
from compress.errors import CompressError


class Classifier(nn.Module):
    """A backbone, the global average of its last map, and a fresh linear layer of `classes` outputs.

    The backbone ends at its last tap, before the classifier of its architecture, so a head is drawn from `seed`.
    """

    def __init__(self, backbone: Backbone, classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = nn.Linear(backbone.feature_info.channels()[-1], classes)
        self.head = head.to(next(backbone.parameters()))  # its device and precision

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, classes) of images (N, 3, H, W)."""
        scores: Tensor = self.head(self.backbone(x)[-1].mean((2, 3)))
        return scores


@torch.inference_mode(False)
def as_classifier(backbone: Backbone, *, classes: int, seed: int = 0) -> Classifier:
    """A classifier on a copy of `backbone`, in evaluation mode, its parameters ready to be trained.

    Called with a batch (N, 3, H, W), normalised with the backbone's mean and std, it gives scores (N, classes).
    `train_classifier` trains it; so does any loop of your own.

    Args:
        backbone: dense or slim, on any device and in any precision. The deeper its last tap, the more the head has to
            go by.
        classes: 2 or more.
        seed: of the head's weights.

    Raises:
        CompressError: fewer than two classes.
    """
    if classes < 2:
        raise CompressError(f"{classes} classes: a classifier needs 2 at least")
    return Classifier(copy.deepcopy(backbone), classes, seed).requires_grad_(True).eval()
