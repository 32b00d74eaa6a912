"""A slim backbone as a plain classifier, and its training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

import compress
from compress import CompressError, Recipe
from compress.artifact import digest_of_tensors

RECIPE = Recipe(optimizer="adamw", lr=3e-3, batch=8, crop=64, warm_up=2, holdout=0.0, check_every=5)


def coloured(count: int, classes: int = 2) -> list[tuple[Tensor, int]]:
    """Noisy images that are red, green or blue: the class is the channel."""
    rng = torch.Generator().manual_seed(0)
    images = []
    for number in range(count):
        image = torch.randint(0, 100, (3, 64, 64), dtype=torch.uint8, generator=rng)
        image[number % classes] += 120
        images.append((image, number % classes))
    return images


@pytest.fixture(scope="module")
def slim() -> compress.Backbone:
    dense = compress.create_backbone("resnet18", weights="none", taps=("layer1", "layer2"))
    return compress.prune(dense, ratio=0.75)


def test_scores_are_the_heads_of_the_mean_of_the_last_map(slim: compress.Backbone) -> None:
    net = compress.as_classifier(slim, classes=5)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = slim(images)[-1].mean((2, 3)) @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(images), expected)
    assert torch.equal(compress.as_classifier(slim, classes=5).head.weight, net.head.weight)
    assert not torch.equal(compress.as_classifier(slim, classes=5, seed=1).head.weight, net.head.weight)


def test_it_shares_nothing_with_the_backbone(slim: compress.Backbone) -> None:
    before = digest_of_tensors(slim)
    net = compress.as_classifier(slim, classes=2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert digest_of_tensors(slim) == before


def test_its_head_is_where_and_what_the_backbone_is(slim: compress.Backbone) -> None:
    net = compress.as_classifier(copy.deepcopy(slim).to(torch.bfloat16), classes=3)
    assert net(torch.rand(2, 3, 64, 64, dtype=torch.bfloat16)).dtype is torch.bfloat16
    elsewhere = compress.as_classifier(copy.deepcopy(slim).to("meta"), classes=3)
    assert {parameter.device.type for parameter in elsewhere.parameters()} == {"meta"}


def test_what_holds_a_backbone_is_not_saved_in_its_place(slim: compress.Backbone, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"a Classifier is no Backbone: .* net\.backbone"):
        compress.save(compress.as_classifier(slim, classes=2), tmp_path / "net.safetensors")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_it_learns_what_can_be_told_apart(slim: compress.Backbone) -> None:
    images = coloured(48, classes=3)
    net = compress.as_classifier(slim, classes=3)
    start = copy.deepcopy(net.state_dict())
    trained = compress.train_classifier(net, images, steps=30, recipe=RECIPE, device="cpu")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (slim.mean, slim.std))
    batch = (torch.stack([image for image, _ in images]).float() / 255 - mean) / std
    with torch.no_grad():
        right = (trained(batch).argmax(dim=1) == torch.tensor([label for _, label in images])).float().mean()
    assert right > 0.9
    assert not trained.training
    assert all(torch.equal(tensor, start[name]) for name, tensor in net.state_dict().items())


def test_the_backbone_in_it_says_that_it_was_fine_tuned(slim: compress.Backbone) -> None:
    dense = compress.create_backbone("resnet18", weights="none", taps=("layer1",))
    kept = {}
    for backbone in (slim, dense):
        net = compress.as_classifier(backbone, classes=2)
        kept[backbone.spec.pruning is None] = compress.train_classifier(
            net, coloured(16), steps=2, recipe=RECIPE, device="cpu"
        ).backbone.spec
    assert kept[False].pruning is not None
    assert (kept[False].pruning.recover, kept[False].pruning.recover_steps) == ("finetune", 2)
    assert kept[True].weights.source == "none (seed 0), fine-tuned"
    assert kept[True].weights.sha256 is not None


def test_what_cannot_be_classified_is_refused(slim: compress.Backbone) -> None:
    with pytest.raises(CompressError, match="1 classes: a classifier needs 2"):
        compress.as_classifier(slim, classes=1)
    with pytest.raises(CompressError, match="images have 3 classes and the classifier 2"):
        compress.train_classifier(compress.as_classifier(slim, classes=2), coloured(16, 3), steps=1, recipe=RECIPE)
    bare: list[Tensor] = [image for image, _ in coloured(16)]
    with pytest.raises(CompressError, match="has no label"):
        compress.train_classifier(compress.as_classifier(slim, classes=2), bare, steps=1, recipe=RECIPE)  # type: ignore[arg-type]
