"""Images that a sweep keeps decoded: the same pixels and the same rows, within a limit, and never stale."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import compress
from anomaly import AnomalyError, decoded_images, open_dataset
from anomaly.decoded_images import DecodedImages
from anomaly.images import load_image
from pipelines.evaluate import DetectorSettings, evaluate

BYTES = 3 * 224 * 224


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    made = [tmp_path / f"{index}.png" for index in range(3)]
    for file in made:
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(file)
    return made


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded."""
    seen: list[Path] = []

    def counted(file: Path) -> torch.Tensor:
        seen.append(file)
        return load_image(file)

    monkeypatch.setattr(decoded_images, "load_image", counted)
    return seen


def test_an_image_is_decoded_once_within_the_limit(files: list[Path], decodings: list[Path]) -> None:
    decoded = DecodedImages(limit=2 * BYTES + 1)  # no limit need be so many images and nothing over
    for _ in range(2):
        assert all(torch.equal(decoded(file), load_image(file)) for file in files)
    assert decodings == [*files, files[2]]
    assert decoded.bytes == 2 * BYTES
    decoded.fill(files)
    assert len(decodings) == 4, "a full one looks at no more files"


def test_a_file_that_changed_is_decoded_again(files: list[Path], decodings: list[Path]) -> None:
    decoded = DecodedImages()
    before = decoded(files[0])
    files[0].write_bytes(files[1].read_bytes())
    os.utime(files[0], ns=(1, 1))
    assert torch.equal(decoded(files[0]), load_image(files[1]))
    assert not torch.equal(decoded(files[0]), before)
    assert len(decodings) == 2
    assert decoded.bytes == BYTES
    files[0].unlink()
    with pytest.raises(AnomalyError, match="cannot read"):
        decoded(files[0])


def test_the_row_is_the_same(tiny_dataset: Path, decodings: list[Path]) -> None:
    (category,) = open_dataset(str(tiny_dataset), cache=tiny_dataset, only=("woven_fabric",))
    backbone = compress.create_backbone("mobilenet_v3_small", weights="none")
    decoded = DecodedImages()
    own, *shared = (
        dataclasses.asdict(evaluate(backbone, category, DetectorSettings(bank_size=20), command="", decoded=each)[0])
        for each in (None, decoded, decoded)
    )
    assert len(decodings) == len(set(decodings)) == len(category.train) + len(category.test)
    for row in shared:
        differing = {name for name in own if row[name] != own[name]}
        assert all(name.startswith("ms_") or name.endswith("rss_bytes") for name in differing)
        assert row["peak_rss_bytes"] > 0
