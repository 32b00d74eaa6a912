"""Slim a CNN of your own, that no registry knows: cut it, teach it, save it, load it again.

python examples/your_own_cnn.py
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import compress


class Inspector(nn.Module):
    """Three stages with residual sums, and a head."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 4, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.fine = self._stage(width, 2 * width)
        self.coarse = self._stage(2 * width, 4 * width)
        self.head = nn.Linear(4 * width, 4)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Module:
        down = nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
        return nn.Sequential(down, nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.coarse(self.fine(self.stem(images))).mean((2, 3)))


def main() -> None:
    torch.manual_seed(0)
    mine = Inspector().eval()  # with weights that you trained
    photographs = [torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8) for _ in range(24)]

    dense = compress.as_backbone(mine, example_input=torch.rand(1, 3, 96, 96), taps=("fine", "coarse"))
    slim = compress.prune(dense, ratio=0.5)
    recipe = compress.Recipe(batch=8, crop=96)
    slim = compress.distill(slim, teacher=dense, images=photographs, steps=3, recipe=recipe)  # 1,500 in earnest
    before, after = compress.cost_of(dense), compress.cost_of(slim)
    print(f"{before.params_used:,} parameters became {after.params_used:,}")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "inspector.safetensors")
        compress.save(slim, file)
        try:
            compress.load_backbone(file)
        except compress.CompressError as refusal:
            print("refused:", str(refusal).rsplit("/", 1)[-1])
        again = compress.load_backbone(file, constructor=Inspector)
    images = torch.rand(1, 3, 96, 96)
    print("the same maps:", all(map(torch.equal, again(images), slim(images))))


if __name__ == "__main__":
    main()
