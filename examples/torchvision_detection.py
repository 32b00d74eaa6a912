"""A slim backbone with a feature pyramid in torchvision's Faster R-CNN, RetinaNet and SSDLite, trained for a moment.

compress prune --arch resnet18 --weights bundled --ratio 0.3 -o slim.safetensors
python examples/torchvision_detection.py slim.safetensors
"""

import sys

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet, anchor_utils, ssd, ssdlite
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import compress

SIDE, CHANNELS, CLASSES, STEPS = 128, 64, 2, 40  # class 0 is the background, class 1 a rectangle


class SlimPyramid(nn.Module):
    """What torchvision's detectors take: maps "0", "1" and "pool", at strides 8, 16 and 32, of `out_channels` each."""

    def __init__(self, slim: compress.Backbone) -> None:
        super().__init__()
        self.body, self.out_channels = slim, CHANNELS
        self.fpn = FeaturePyramidNetwork(slim.feature_info.channels(), CHANNELS, LastLevelMaxPool())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(level): feature_map for level, feature_map in enumerate(self.body(x))})

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.body.eval()  # batches of detectors are small: batch norm keeps the statistics that it has
        return self


def faster_rcnn(pyramid: SlimPyramid, **images: object) -> nn.Module:
    pool = MultiScaleRoIAlign(["0", "1", "pool"], output_size=7, sampling_ratio=2)
    anchors = anchor_utils.AnchorGenerator(((16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 3)
    few = {"box_batch_size_per_image": 32, "rpn_post_nms_top_n_train": 100, "rpn_post_nms_top_n_test": 50}
    return FasterRCNN(pyramid, CLASSES, SIDE, SIDE, rpn_anchor_generator=anchors, box_roi_pool=pool, **few, **images)


def retina_net(pyramid: SlimPyramid, **images: object) -> nn.Module:
    anchors = anchor_utils.AnchorGenerator(((16, 24), (32, 48), (64, 96)), ((0.5, 1.0, 2.0),) * 3)
    return RetinaNet(pyramid, CLASSES, SIDE, SIDE, anchor_generator=anchors, **images)


def ssd_lite(pyramid: SlimPyramid, **images: object) -> nn.Module:
    boxes = anchor_utils.DefaultBoxGenerator([[2]] * 3, scales=[0.15, 0.25, 0.4, 0.6], steps=[8, 16, 32])
    head = ssdlite.SSDLiteHead([CHANNELS] * 3, boxes.num_anchors_per_location(), CLASSES, nn.BatchNorm2d)
    return ssd.SSD(pyramid, boxes, (SIDE, SIDE), CLASSES, head=head, **images)


def draw(count: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images (3, 128, 128) in [0, 1], and for each its boxes (1, 4) as left, top, right, bottom, and their classes."""
    images = nn.functional.interpolate(0.5 * torch.rand(count, 3, 16, 16), SIDE, mode="bicubic").clamp(0, 1)
    corner = torch.randint(4, 70, (count, 2))
    boxes = torch.cat([corner, corner + torch.randint(20, 50, (count, 2))], dim=1)
    for image, (left, top, right, bottom) in zip(images, boxes.tolist(), strict=True):
        image[:, top:bottom, left:right] += 0.4
    return list(images), [{"boxes": box[None].float(), "labels": torch.tensor([1])} for box in boxes]


for build in (faster_rcnn, retina_net, ssd_lite):
    torch.manual_seed(0)
    slim = compress.load_backbone(sys.argv[1])
    detector = build(SlimPyramid(slim), image_mean=slim.mean, image_std=slim.std).train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        loss = sum(detector(*draw(4)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        (found,) = detector.eval()(draw(1)[0])
    start, end = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    print(f"{build.__name__}: loss {start:.2f} -> {end:.2f}, {len(found['boxes'])} boxes found in a new image")
