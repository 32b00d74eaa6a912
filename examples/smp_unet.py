"""A slim backbone as the encoder of a U-Net from segmentation_models_pytorch, trained on painted defects.

    pip install 'prunecore[segmentation]'
    compress prune --arch resnet18 --weights bundled --ratio 0.3 -o slim.safetensors
    compress generate --train 16 --good 8 --per-defect 2 -o surfaces/
    python examples/smp_unet.py slim.safetensors surfaces/ printed_grid

No defect is needed to train: they are painted into the good images, with their masks. The test images have real ones.
"""

import sys

import numpy as np
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.encoders import encoders
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

import anomaly
import compress
from anomaly.images import load_image, load_masks, normalise
from anomaly.synthetic_defects import paint_defects


class SlimEncoder(nn.Module, EncoderMixin):
    """The image, then the last map at each stride 2, 4, 8, ... that `slim` has: what every decoder of smp reads."""

    def __init__(self, slim: compress.Backbone, depth: int, output_stride: int) -> None:
        super().__init__()
        self.slim, self._depth, self._in_channels, self._output_stride = slim, depth, 3, output_stride
        maps = slim.stage_maps(torch.zeros(1, 3, 64, 64), slim.stages)
        last = {64 // each.shape[-1]: (stage, each.shape[1]) for stage, each in zip(slim.stages, maps, strict=True)}
        self._stages = [last[2**level][0] for level in range(1, depth + 1)]
        self._out_channels = [3, *(last[2**level][1] for level in range(1, depth + 1))]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, *self.slim.stage_maps(x, self._stages)]


def main(file: str, dataset: str, name: str, steps: int = 120) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    slim = compress.load_backbone(file)

    encoders["slim"] = {"encoder": SlimEncoder, "params": {"slim": slim}, "pretrained_settings": {}}
    unet = smp.Unet("slim", encoder_depth=4, encoder_weights=None, decoder_channels=(64, 32, 32, 16))

    (category,) = anomaly.open_dataset(dataset, cache="cache", only=(name,))
    good = torch.stack([load_image(sample.image) for sample in category.train])
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
    dice, cross_entropy = smp.losses.DiceLoss("binary"), smp.losses.SoftBCEWithLogitsLoss()
    for step in range(steps):
        images, masks = paint_defects(good[torch.randint(len(good), (4,))], rng)
        logits, wanted = unet(normalise(images, slim.mean, slim.std)), masks[:, None].float()
        loss = dice(logits, wanted) + cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (0, steps - 1):
            print(f"step {step}: loss {loss.item():.3f}")

    with torch.no_grad():
        images = torch.stack([load_image(sample.image) for sample in category.test])
        logits = unet.eval()(normalise(images, slim.mean, slim.std))[:, 0]
    print(f"pixel AUROC {anomaly.auroc(load_masks(category).ravel(), logits.numpy().ravel()):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
