"""Features on disk: every fault that can befall them, injected."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from anomaly import AnomalyError, Embedding, PatchCore, Sample, feature_file
from anomaly.feature_file import FeatureFile

IMAGES = 40  # three batches of 16, the last one shorter


class Pixels(nn.Module):
    """Two maps of averaged pixels; counts the images that went through."""

    def __init__(self, stride: int = 8) -> None:
        super().__init__()
        self.stride, self.seen = stride, 0

    def forward(self, x: Tensor) -> list[Tensor]:
        self.seen += len(x)
        return [F.avg_pool2d(x, 8), F.avg_pool2d(x, 2 * self.stride)[:, :1]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("good")
    for index in range(IMAGES):
        noise = np.random.default_rng(index).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index:02}.png")
    return [Sample(folder / f"{index:02}.png", "good") for index in range(IMAGES)]


def _detector(folder: Path | None, network: Pixels | None = None, **options: object) -> PatchCore:
    return PatchCore(
        network or Pixels(),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        bank_size=30,
        features=folder,
        **options,  # type: ignore[arg-type]
    )


def _bank(detector: PatchCore, samples: Sequence[Sample]) -> tuple[float, Tensor]:
    detector.fit(samples)
    assert detector.covering_radius is not None
    queries = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    return detector.covering_radius, detector.bank.nearest(queries)


def _data(folder: Path) -> Path:
    (file,) = folder.glob("*.features")
    return file


def test_a_bank_from_disk_is_the_bank_from_memory(good: list[Sample], tmp_path: Path) -> None:
    radius, distances = _bank(_detector(None), good)
    for _ in range(2):  # written, then read
        other_radius, others = _bank(_detector(tmp_path), good)
        assert other_radius == radius
        assert torch.equal(others, distances)


def test_two_levels_from_disk_within_a_memory(good: list[Sample], tmp_path: Path) -> None:
    detector = _detector(tmp_path, sampler="two_level", memory=600_000)
    radius, _ = _bank(detector, good)
    exact, _ = _bank(_detector(tmp_path), good)
    assert len(detector.bank) == 30
    assert exact <= radius < 4 * exact
    with pytest.raises(AnomalyError, match=r"greedy needs .* two_level"):
        _detector(tmp_path, memory=600_000).fit(good)
    with pytest.raises(AnomalyError, match=r"patches take 0\.5 MiB, .*--features"):
        _detector(None, memory=100_000).fit(good)


@pytest.mark.parametrize("killed_at", [0, 1, 2])
@pytest.mark.parametrize("moment", ["before the block", "in the block", "before its line", "in its line"])
def test_a_killed_fit_goes_on_after_its_last_block(
    good: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, moment: str
) -> None:
    expected = _bank(_detector(None), good)
    with monkeypatch.context() as patch:
        patch.setattr(feature_file, "_write", _killed(killed_at, moment))
        with pytest.raises(KeyboardInterrupt):
            _detector(tmp_path).fit(good)
    network = Pixels()
    radius, distances = _bank(_detector(tmp_path, network), good)
    kept = 16 * killed_at
    assert network.seen == IMAGES - kept + min(kept, 16)  # one batch again, to see that it is the same embedding
    assert radius == expected[0]
    assert torch.equal(distances, expected[1])


def _killed(block: int, moment: str) -> Callable[..., None]:
    write, calls = feature_file._write, iter(range(1000))
    victim = 2 + 2 * block + (0 if moment in ("before the block", "in the block") else 1)  # two calls make the files

    def killed(file: Path, content: bytes, *, at: int) -> None:
        if next(calls) < victim:
            write(file, content, at=at)
            return
        if moment.startswith("in"):
            write(file, content[: len(content) // 2], at=at)
        raise KeyboardInterrupt

    return killed


@pytest.mark.parametrize("block", [0, 2])
def test_a_full_disk_says_so_and_keeps_what_it_has(
    good: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    write = feature_file._write

    def full(file: Path, content: bytes, *, at: int) -> None:
        if file.suffix == ".features" and at >= block * 16 * 784 * 4 * 4 and content:
            write(file, content[: len(content) // 3], at=at)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content, at=at)

    with monkeypatch.context() as patch:
        patch.setattr(feature_file, "_write", full)
        with pytest.raises(AnomalyError, match=rf"No space left .* goes on after {block * 16 * 784} patches"):
            _detector(tmp_path).fit(good)
    network = Pixels()
    _detector(tmp_path, network).fit(good)
    assert network.seen == IMAGES - 16 * block + (16 if block else 0)


@pytest.mark.parametrize(("at", "block"), [(0, 0), (16 * 784 * 16 + 5, 1), (-1, 2)])
def test_a_flipped_bit_is_found(good: list[Sample], tmp_path: Path, at: int, block: int) -> None:
    _detector(tmp_path).fit(good)
    content = bytearray(_data(tmp_path).read_bytes())
    content[at] ^= 1
    _data(tmp_path).write_bytes(content)
    with pytest.raises(AnomalyError, match=rf"damaged in block {block} .* delete it"):
        _detector(tmp_path).fit(good)


def test_a_file_cut_short_or_gone_is_found(good: list[Sample], tmp_path: Path) -> None:
    _detector(tmp_path).fit(good)
    _data(tmp_path).write_bytes(_data(tmp_path).read_bytes()[:-4])
    with pytest.raises(AnomalyError, match="shorter than its list of blocks"):
        _detector(tmp_path).fit(good)
    _data(tmp_path).unlink()
    with pytest.raises(AnomalyError, match="shorter than its list of blocks"):
        _detector(tmp_path).fit(good)


def test_a_damaged_list_of_blocks_is_found(good: list[Sample], tmp_path: Path) -> None:
    _detector(tmp_path).fit(good)
    (lines,) = tmp_path.glob("*.blocks")
    content = lines.read_text()
    for damaged in (content.replace("sha256", "sha257", 3), "{}" + content, content.replace("12544", "12543", 1)):
        lines.write_text(damaged)
        with pytest.raises(AnomalyError, match="delete it"):
            _detector(tmp_path).fit(good)


def test_other_images_weights_or_precision_have_other_files(good: list[Sample], tmp_path: Path) -> None:
    _detector(tmp_path).fit(good)
    _detector(tmp_path).fit(good[:-1])
    _detector(tmp_path, features_dtype="float16").fit(good)
    _detector(tmp_path, embedding=Embedding("max")).fit(good)
    assert len(list(tmp_path.glob("*.features"))) == 4


def test_the_seed_names_another_file_only_where_channels_are_drawn_by_it(good: list[Sample], tmp_path: Path) -> None:
    for seed in (0, 1):
        _detector(tmp_path, embedding=Embedding(seed=seed)).fit(good)
    assert len(list(tmp_path.glob("*.features"))) == 1
    for seed in (0, 1):  # two runs of a sweep
        _detector(tmp_path, embedding=Embedding(width=2, seed=seed)).fit(good)
    assert len(list(tmp_path.glob("*.features"))) == 3


def test_features_of_another_embedding_are_not_taken_for_ours(good: list[Sample], tmp_path: Path) -> None:
    _detector(tmp_path).fit(good)
    with pytest.raises(AnomalyError, match="another embedding"):
        _detector(tmp_path, Pixels(stride=16)).fit(good)  # no weights: only its maps differ


def test_float16_halves_the_file_and_stays_close(good: list[Sample], tmp_path: Path) -> None:
    radius, _ = _bank(_detector(None), good)
    other_radius, _ = _bank(_detector(tmp_path, features_dtype="float16"), good)
    assert _data(tmp_path).stat().st_size == IMAGES * 784 * 4 * 2
    assert other_radius == pytest.approx(radius, rel=0.01)
    rows = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    file = FeatureFile(tmp_path, {}, dtype="float16")
    file.append(rows)
    assert torch.allclose(file[:], rows, rtol=2**-11, atol=1e-7)  # half of float16's last digit
    assert file[:].dtype == torch.float32


def test_float16_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(AnomalyError, match="65504 do not fit float16"):
        FeatureFile(tmp_path, {}, dtype="float16").append(torch.full((2, 3), 1e6))
    with pytest.raises(AnomalyError, match="'float8': choose from float32, float16"):
        FeatureFile(tmp_path, {}, dtype="float8")


def test_rows_and_blocks_come_back(tmp_path: Path) -> None:
    rows = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    file = FeatureFile(tmp_path, {"a": 1})
    for part in rows.split(30):
        file.append(part)
    again = FeatureFile(tmp_path, {"a": 1})
    assert again.shape == (100, 5)
    assert again.blocks == 4
    assert torch.equal(again[25:77], rows[25:77])
    assert torch.equal(again[:], rows)
    assert torch.equal(again.block(1), rows[30:60])
    picks = torch.tensor([99, 0, 31, 30])
    assert torch.equal(again.take(picks), rows[picks])


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnomalyError, match="cannot keep features in"):
        FeatureFile(tmp_path / "file", {})


@pytest.mark.parametrize("rows", ['"3"', "-3", "0", "null", "1e400", "[" * 100_000])
def test_a_list_of_blocks_with_odd_numbers_is_refused(tmp_path: Path, rows: str) -> None:
    FeatureFile(tmp_path, {}).append(torch.zeros(3, 2))
    (lines,) = tmp_path.glob("*.blocks")
    heading, block, _ = lines.read_text().split("\n")
    lines.write_text(f"{heading}\n{block.replace('3', rows, 1)}\n")
    with pytest.raises(AnomalyError, match=r"unreadable list of blocks .*: delete it"):
        FeatureFile(tmp_path, {})
