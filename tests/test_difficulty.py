"""The generated set is worth detecting on: random weights fail, pretrained ones work, nothing saturates."""

from __future__ import annotations

from statistics import fmean

import pytest

import compress
from anomaly import open_dataset
from pipelines.evaluate import DetectorSettings, evaluate


@pytest.mark.parametrize("category", range(4))
def test_pretrained_weights_beat_random_ones_and_do_not_saturate(
    category: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    surface = open_dataset("generated", cache=tmp_path_factory.getbasetemp() / "cache")[category]
    auroc: dict[str, list[float]] = {"offline": [], "none": []}
    for weights, seeds in (("offline", (0,)), ("none", (0, 1))):
        for seed in seeds:
            backbone = compress.create_backbone("efficientnet_lite0", weights=weights, seed=seed)
            row, _ = evaluate(backbone, surface, DetectorSettings(seed=seed), command="")
            assert row.image_auroc is not None
            assert row.pixel_auroc is not None
            assert max(row.image_auroc, row.pixel_auroc) < 0.995
            auroc[weights].append(row.image_auroc)
    assert auroc["offline"][0] > 0.8
    assert fmean(auroc["none"]) < auroc["offline"][0] - 0.1
