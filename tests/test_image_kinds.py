"""Images of a wrong kind are refused in the same words, whoever reads them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import compress
from compress import CompressError
from compress.precision import bfloat16_pays
from compress.pruning.sensitivity import sensitivity
from compress.training import TrainingSet

IMAGES = [torch.zeros(3, 40, 40, dtype=torch.uint8)] * 8


def _rank(images: Any, method: str) -> None:
    compress.prune(compress.create_backbone("resnet18", weights="none"), ratio=0.5, method=method, images=images)


def _cut_each(images: Any) -> None:
    sensitivity(compress.create_backbone("resnet18", weights="none"), images=images)


def _train(images: Any) -> None:
    TrainingSet(
        images, labelled=False, mean=(0, 0, 0), std=(1, 1, 1), batch=4, crop=32, area=(0.3, 1.0), holdout=0.0, seed=0
    )


def _export(images: Any) -> None:
    with TemporaryDirectory() as folder:
        net = compress.create_backbone("mobilenet_v3_small", weights="none", taps=["features.1"])
        compress.export_onnx(net, Path(folder, "net.onnx"), images=images)


READERS = [lambda given: _rank(given, "lcp"), lambda given: _rank(given, "taylor"), _cut_each, _train]


@pytest.mark.parametrize("read", READERS, ids=["lcp", "taylor", "sensitivity", "training"])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (DataLoader(IMAGES), "come in a DataLoader, .* pass loader.dataset"),  # type: ignore[arg-type]
        ((image for image in IMAGES), "come in a generator: pass a list"),
    ],
)
def test_what_is_no_sequence_is_refused(read: Any, images: Any, message: str) -> None:
    with pytest.raises(CompressError, match=message):
        read(images)


@pytest.mark.parametrize("read", [READERS[0], _train, _export], ids=["lcp", "training", "export"])
def test_a_tensor_of_images_is_a_sequence_of_them(read: Any) -> None:
    read(torch.randint(0, 256, (8, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("read", READERS[2:], ids=["sensitivity", "training"])
@pytest.mark.parametrize("image", [torch.zeros(3, 40, 40), torch.zeros(1, 40, 40, dtype=torch.uint8)])
def test_what_is_no_photograph_is_refused(read: Any, image: Tensor) -> None:
    with pytest.raises(CompressError, match=r"image 0 is torch.* \([13], 40, 40\): give uint8 RGB"):
        read([image] * 8)


@pytest.mark.parametrize(
    ("features", "pays"), [({}, False), ({"avx512_bf16": True}, True), ({"avx512_bf16": False, "amx_bf16": True}, True)]
)
def test_bfloat16_pays_where_a_processor_has_it(
    features: dict[str, bool], pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert bfloat16_pays(torch.device("cpu")) == pays
    assert not bfloat16_pays(torch.device("meta"))
