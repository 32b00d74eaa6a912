"""A slim backbone as an image classifier, trained on labelled images.

python examples/classifier.py
"""

import torch
from torch import Tensor

import compress

RECIPE = compress.Recipe(optimizer="adamw", lr=1e-3, weight_decay=1e-2, batch=8, crop=64, holdout=0.0)


def striped(count: int) -> list[tuple[Tensor, int]]:
    """Noisy stripes, upright or level: in the place of your labelled images, such as an ImageFolder gives."""
    stripe = torch.arange(96) % 8 < 4
    images = []
    for number in range(count):
        image = torch.randint(0, 120, (3, 96, 96), dtype=torch.uint8)
        if number % 2:
            image[:, :, stripe] += 120
        else:
            image[:, stripe] += 120
        images.append((image, number % 2))
    return images


def main() -> None:
    torch.manual_seed(0)
    dense = compress.create_backbone("mobilenet_v3_small", weights="bundled")
    slim = compress.prune(dense, ratio=0.25)
    net = compress.as_classifier(slim, classes=2)
    net = compress.train_classifier(net, striped(48), steps=150, recipe=RECIPE)

    test = striped(32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (net.backbone.mean, net.backbone.std))
    batch = (torch.stack([image for image, _ in test]).float() / 255 - mean) / std
    with torch.no_grad():
        right = (net(batch).argmax(dim=1) == torch.tensor([label for _, label in test])).float().mean()
    print(f"{right:.0%} of {len(test)} new images are told apart")
    print("the backbone's record:", net.backbone.spec.pruning.recover)


if __name__ == "__main__":
    main()
