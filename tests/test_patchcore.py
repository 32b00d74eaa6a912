"""PatchCore's parts by hand and by brute force, and the whole on images that differ where they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Pixels
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from anomaly import AnomalyError, PatchCore, Sample
from anomaly.images import load_image
from anomaly.memory_bank import MemoryBank
from anomaly.patch_embedding import embed_patches
from anomaly.scoring import anomaly_maps, image_scores
from anomaly.timing import time_stages


def _detector(**options: object) -> PatchCore:
    return PatchCore(Pixels(), mean=(0, 0, 0), std=(1, 1, 1), **options)  # type: ignore[arg-type]


def test_embedding_by_hand() -> None:
    shallow = torch.zeros(1, 1, 4, 4)
    shallow[0, 0, 1, 1] = 9.0
    deep = torch.ones(1, 2, 2, 2)
    patches = embed_patches([shallow, deep])
    assert patches.shape == (1, 4, 4, 3)
    assert patches[0, :3, :3, 0].eq(1).all()  # a ninth of 9 wherever the window meets it
    assert patches[0, 3, :, 0].eq(0).all()
    # the padding's zeros count: at the corner of a 2x2 map of ones four of nine are inside
    assert patches[0, 0, 0, 1] == pytest.approx(4 / 9)


def test_images_go_to_the_device_of_the_backbone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, device="meta"))  # "meta" stands in for a graphics card
    detector = PatchCore(network, mean=(0, 0, 0), std=(1, 1, 1))
    assert detector.extract(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))[0].device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_backbone_on_a_gpu_gives_the_scores_of_a_cpu(good: list[Sample], tmp_path: Path, on_disk: bool) -> None:
    batch = torch.stack([load_image(sample.image) for sample in good])
    scores = []
    for device in ("cpu", "cuda"):
        network = nn.Sequential(Pixels())
        network.register_parameter("weight", nn.Parameter(torch.zeros(1, device=device)))
        folder = tmp_path / device if on_disk else None
        detector = PatchCore(network, mean=(0, 0, 0), std=(1, 1, 1), coreset=0.5, features=folder)
        scores.append(detector.fit(good[:3]).predict(batch).scores)
    assert torch.allclose(*scores, atol=1e-3)


def test_a_network_in_training_mode_does_not_learn_from_images_and_keeps_its_modes() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    network[2].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    detector = PatchCore(network, mean=(0, 0, 0), std=(1, 1, 1))
    detector.extract(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(RuntimeError):
        detector.extract(torch.zeros(1, 5, 32, 32, dtype=torch.uint8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == [True, True, True, False]


def test_search_equals_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(300, 20, generator=generator), torch.randn(500, 20, generator=generator)
    assert torch.allclose(MemoryBank(bank).nearest(queries), torch.cdist(queries, bank).amin(dim=1), atol=1e-3)


def test_a_patch_of_the_bank_is_at_distance_zero() -> None:
    bank = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * 100
    assert MemoryBank(bank).nearest(bank).max() < 0.5  # float32 cancellation of squares near 10,000


def test_scores_and_maps_by_hand() -> None:
    distances = torch.zeros(2, 28, 28)
    distances[0, 5, 7] = 3.0
    assert image_scores(distances).tolist() == [3.0, 0.0]
    maps = anomaly_maps(distances, 224)
    assert maps.shape == (2, 224, 224)
    row, column = divmod(int(maps[0].argmax()), 224)
    assert (row // 8, column // 8) == (5, 7)
    assert maps[1].eq(0).all()
    upsampled = F.interpolate(distances[:1, None], size=(224, 224), mode="bilinear")[0, 0]
    assert np.allclose(maps[0], gaussian_filter(upsampled.numpy(), sigma=4), atol=1e-6)


def test_a_defect_scores_higher_and_lights_up_where_it_is(good: list[Sample], tmp_path: Path) -> None:
    detector = _detector(coreset=0.1).fit(good)
    pixels = np.array(Image.open(good[0].image))
    pixels[100:130, 160:190] = 255
    Image.fromarray(pixels).save(tmp_path / "bad.png")
    batch = torch.stack([load_image(good[1].image), load_image(tmp_path / "bad.png")])
    prediction = detector.predict(batch)
    assert prediction.scores[1] > 5 * prediction.scores[0]
    row, column = divmod(int(prediction.maps[1].argmax()), 224)
    assert 84 <= row <= 114
    assert 144 <= column <= 174


def test_bank_sizes(good: list[Sample]) -> None:
    assert len(_detector(coreset=0.01).fit(good).bank) == 31  # of 4 x 28 x 28 = 3136
    assert len(_detector(bank_size=100).fit(good).bank) == 100
    assert len(_detector(coreset=1.0).fit(good[:1]).bank) == 784


def test_the_same_seed_gives_the_same_scores(good: list[Sample]) -> None:
    batch = load_image(good[3].image)[None]
    first, again = (_detector(seed=4).fit(good[:3]).predict(batch) for _ in range(2))
    assert torch.equal(first.scores, again.scores)
    assert torch.equal(first.maps, again.maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coreset": 0.0}, r"coreset ratio 0\.0 is outside"),
        ({"coreset": 2.0}, r"coreset ratio 2\.0 is outside"),
        ({"bank_size": 0}, "bank size 0 is below 1"),
    ],
)
def test_settings_that_make_no_bank_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(AnomalyError, match=message):
        _detector(**options)


def test_a_detector_without_data_says_so(good: list[Sample]) -> None:
    with pytest.raises(AnomalyError, match="call fit first"):
        _detector().predict(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    with pytest.raises(AnomalyError, match="no training images"):
        _detector().fit([])
    with pytest.raises(AnomalyError, match="more than the 784 training patches"):
        _detector(bank_size=1000).fit(good[:1])


def test_stage_times_are_measured(good: list[Sample]) -> None:
    timing = time_stages(_detector().fit(good), good[0].image, warm_up=1, repetitions=3)
    times = timing.median
    stages = (times.features, times.embedding, times.search, times.scoring)
    assert all(stage > 0 for stage in (*stages, times.decode))  # type: ignore[operator]
    assert times.total >= max(stages)
    assert timing.p95.total >= times.total
    decoded = time_stages(_detector().fit(good), load_image(good[0].image), warm_up=0, repetitions=1)
    assert decoded.median.decode is None
