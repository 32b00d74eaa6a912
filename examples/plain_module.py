"""A slim backbone is a plain nn.Module: no code of ours is needed around it.

python examples/plain_module.py [slim.safetensors]
"""

import copy
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import compress


def make_slim(file: Path) -> None:
    """Half of the channels of the ResNet-18 that ships with the package."""
    compress.save(compress.prune(compress.create_backbone("resnet18", weights="bundled"), ratio=0.5), file)


class Head(nn.Module):
    """Your network: two maps, brought to one size and joined."""

    def __init__(self, backbone: nn.Module, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.mix = nn.Conv2d(sum(backbone.feature_info.channels()), outputs, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        fine, coarse = self.backbone(images)
        coarse = nn.functional.interpolate(coarse, fine.shape[-2:], mode="bilinear")
        return self.mix(torch.cat([fine, coarse], dim=1))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder, "slim.safetensors")
        if len(sys.argv) == 1:
            make_slim(file)
        backbone = compress.load_backbone(file)
    for entry in backbone.feature_info.get_dicts():
        print("{module}: {num_chs} channels at stride {reduction}".format(**entry))

    images = torch.rand(2, 3, 128, 128)
    network = Head(backbone, outputs=8).train()
    network(images).square().mean().backward()  # gradients reach all of it
    trained = sum(parameter.grad is not None for parameter in network.parameters())
    print(f"{trained} of {len(list(network.parameters()))} tensors have gradients")

    network.eval()
    program = torch.export.export(network, (images,)).module()
    half = copy.deepcopy(network).to(torch.bfloat16)
    with torch.no_grad():
        print("exported:", torch.allclose(program(images), network(images), atol=1e-5))
        print("bfloat16:", half(images.bfloat16()).dtype)


if __name__ == "__main__":
    main()
