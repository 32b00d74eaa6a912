"""Folders of images that users really have: nested, damaged, linked in circles, larger than the memory."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from anomaly import DATASETS, Category
from anomaly.datasets import Named
from anomaly.datasets.mvtec import read_mvtec
from compress.errors import CompressError
from pipelines import image_sets
from pipelines.image_sets import DRAWN, open_images, open_labelled_images

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNECORE_DATA", raising=False)


def grey(name: str, value: int, size: tuple[int, int] = (12, 8)) -> Path:
    """An image file all of one value, so that a test sees which one it got."""
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(file)
    return file


def broken(name: str) -> Path:
    file = grey(name, 0, (64, 64))
    file.write_bytes(file.read_bytes()[:60])
    return file


def values(images: Iterable[torch.Tensor]) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def test_images_are_uint8_rgb_in_the_order_of_their_names_at_any_depth() -> None:
    for value, name in enumerate(["a.png", "b/a.png", "b/c/d.png", "b/z.png", "ä/ünïcode 图像.png"]):
        grey(f"photos/{name}", 10 * value)
    grey("photos/.hidden.png", 99)
    grey("photos/.thumbnails/a.png", 99)
    Path("photos/readme.txt").write_text("no image")
    images = open_images(["photos"])
    assert len(images) == 5
    assert values(images) == [0, 10, 20, 30, 40]
    assert (images[1].dtype, images[1].shape) == (torch.uint8, (3, 8, 12))
    assert values([images[-1], *images[1:3]]) == [40, 10, 20]
    with pytest.raises(IndexError):
        images[5]


def test_the_short_side_is_shrunk_to_256_and_never_enlarged() -> None:
    grey("photos/a-tall.png", 7, (300, 900))
    grey("photos/b-small.png", 7, (200, 400))
    grey("photos/c-jpeg.jpg", 7, (3000, 2000))
    assert [tuple(image.shape) for image in open_images(["photos"])] == [(3, 768, 256), (3, 400, 200), (3, 256, 384)]


def test_a_jpeg_decoded_small_looks_like_the_one_decoded_whole() -> None:
    x, y = np.meshgrid(np.linspace(0, 6, 1600), np.linspace(0, 4, 1200))
    pixels = (127 + 120 * np.sin(x * y)).astype(np.uint8)
    Path("photos").mkdir()
    Image.fromarray(pixels).save("photos/wave.jpg", quality=95)
    whole = Image.open("photos/wave.jpg").convert("RGB").resize((341, 256), Image.Resampling.BILINEAR)
    difference = open_images(["photos"])[0].numpy().astype(int) - np.asarray(whole).transpose(2, 0, 1)
    assert np.abs(difference).mean() < 1


def test_grey_and_16_bit_images_become_rgb() -> None:
    Path("photos").mkdir()
    Image.new("L", (9, 9), 50).save("photos/a.png")
    Image.fromarray(np.full((9, 9), 257 * 70, dtype=np.uint16)).save("photos/b.png")
    images = open_images(["photos"])
    assert [tuple(image.shape) for image in images] == [(3, 9, 9)] * 2
    assert values(images) == [50, 70]


def test_images_that_cannot_be_read_are_left_out_with_one_note(capsys: pytest.CaptureFixture[str]) -> None:
    grey("photos/a.png", 1)
    for number in range(5):
        broken(f"photos/b{number}.png")
    size = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)  # a header that claims 3.6 gigapixels
    chunk = struct.pack(">I", len(size)) + b"IHDR" + size + struct.pack(">I", zlib.crc32(b"IHDR" + size))
    Path("photos/c-huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    Path("photos/d-text.jpg").write_text("no image")
    grey("photos/e.png", 2)
    assert values(open_images(["photos"])) == [1, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert "7 of 9 images are left out" in line
    assert "b2.png" in line
    assert "b3.png" not in line
    assert "and 4 more" in line


def test_refusals_name_the_cure() -> None:
    Path("empty/below").mkdir(parents=True)
    broken("bad/a.png")
    grey("good/a.png", 1)
    with pytest.raises(CompressError, match="--images DIR"):
        open_images([])
    with pytest.raises(CompressError, match="the folder of images nowhere does not exist"):
        open_images(["good", "nowhere"])
    with pytest.raises(CompressError, match=r"good/a\.png is a file: name a folder"):
        open_images(["good/a.png"])
    with pytest.raises(CompressError, match=r"no images in empty or below: add some \(\.bmp"):
        open_images(["good", "empty"])
    with pytest.raises(CompressError, match=r"bad has no image that can be read, of 1: .*a\.png"):
        open_images(["good", "bad"])
    with pytest.raises(CompressError, match=r"cannot read gone\.png: No such file"):
        open_images(["good"], also=[Path("gone.png")])


def test_a_folder_that_may_not_be_read_is_refused_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    grey("photos/a.png", 1)
    grey("photos/closed/b.png", 1)
    scandir = os.scandir

    def guarded(place: str) -> object:  # permissions do not bind root, under whom tests may run
        if Path(place).name == "closed":
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(CompressError, match="cannot read photos/closed: Permission denied"):
        open_images(["photos"])


def test_links_are_followed_but_not_in_circles_and_an_image_counts_once() -> None:
    grey("photos/a.png", 1)
    grey("photos/deep/b.png", 2)
    grey("elsewhere/c.png", 3)
    Path("photos/deep/circle").symlink_to(Path("photos").resolve())
    Path("photos/linked").symlink_to(Path("elsewhere").resolve())
    Path("photos/z.png").symlink_to(Path("photos/a.png").resolve())
    assert values(open_images(["photos"])) == [1, 2, 3]
    assert values(open_images(["photos", "photos/deep", "elsewhere"], also=[Path("photos/a.png")])) == [1, 2, 3]


def test_further_files_come_after_the_folders() -> None:
    grey("photos/a.png", 1)
    further = [grey("tiles/good/000.png", 5), grey("nuts/good/000.png", 6)]
    assert values(open_images(["photos"], also=further)) == [1, 5, 6]
    assert values(open_images([], also=further)) == [5, 6]


def test_folders_are_found_in_prunecore_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    grey("shared/data/photos/a.png", 4)
    monkeypatch.setenv("PRUNECORE_DATA", str(tmp_path / "shared"))
    assert values(open_images(["photos"])) == [4]


def test_beyond_the_memory_limit_images_are_decoded_on_access(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        grey(f"photos/{number}.png", number)
    everything = values(open_images(["photos"]))
    monkeypatch.setattr(image_sets, "MEMORY", 2 * 3 * 12 * 8)
    read: list[str] = []
    decode = image_sets._decode
    monkeypatch.setattr(image_sets, "_decode", lambda file: read.append(file.name) or decode(file))
    images = open_images(["photos"])
    assert read == ["0.png", "1.png"]
    assert values(images) == values(images) == everything
    assert read[2:] == ["2.png", "3.png", "4.png", "5.png"] * 2


def test_an_image_found_damaged_on_access_is_stood_in_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        grey(f"photos/{number}.png", number)
    for name in ("1.png", "2.png", "4.png"):
        broken(f"photos/{name}")
    monkeypatch.setattr(image_sets, "MEMORY", 0)
    images = open_images(["photos"])
    assert len(images) == 5
    assert values(images) == values(images) == [0, 3, 3, 3, 0]
    (line,) = capsys.readouterr().err.splitlines()
    assert "1.png is truncated or damaged" in line
    assert "next readable image stands in" in line


def test_several_threads_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        grey(f"photos/{number}.png", number, (300, 300))
    broken("photos/3.png")
    monkeypatch.setattr(image_sets, "MEMORY", 0)
    images = open_images(["photos"])
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda step: int(images[step % 8][0, 0, 0]), range(64)))
    assert read == [0, 1, 2, 4, 4, 5, 6, 7] * 8


def test_the_fingerprint_follows_names_and_contents_and_not_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    grey("photos/a.bmp", 1)
    grey("copy/a.bmp", 1)
    first = open_images(["photos"]).fingerprint
    assert len(first) == 64
    assert first == open_images(["copy"]).fingerprint
    grey("copy/a.bmp", 2)  # as many bytes
    changed = open_images(["copy"]).fingerprint
    Path("photos/a.bmp").rename("photos/b.bmp")
    renamed = open_images(["photos"]).fingerprint
    grey("photos/c.bmp", 1)
    monkeypatch.setattr(image_sets, "MEMORY", 0)
    more = open_images(["photos"]).fingerprint
    grey("photos/c.bmp", 1, (13, 8))  # not decoded, but larger
    assert len({first, changed, renamed, more, open_images(["photos"]).fingerprint}) == 5


def test_reading_is_tracked() -> None:
    grey("photos/a.png", 1)
    grey("photos/b.png", 1)
    seen: list[tuple[str, int]] = []

    def track(steps: Iterable[T], description: str, total: int) -> Iterator[T]:
        seen.append((description, total))
        yield from steps

    open_images(["photos"], track=track)
    assert seen == [("reading images", 2)]


def test_class_folders_become_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, name in enumerate(["bird/a.png", "bird/sub/b.png", "cat/a.png", "dog/a.png", "dog/b.png"]):
        grey(f"animals/{name}", value)
    grey("animals/.cache/a.png", 9)
    broken("animals/cat/z.png")
    images = open_labelled_images("animals")
    assert images.classes == ("bird", "cat", "dog")
    assert [(int(image[0, 0, 0]), label) for image, label in images] == [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2)]
    assert [label for _, label in images[2:]] == [1, 2, 2]
    assert len(images.fingerprint) == 64
    # An image that is stood in for takes the stand-in's label.
    monkeypatch.setattr(image_sets, "MEMORY", 0)
    images = open_labelled_images("animals")
    assert len(images) == 6
    assert (int(images[3][0][0, 0, 0]), images[3][1]) == (3, 2)


def test_labels_that_are_none_are_refused() -> None:
    grey("flat/a.png", 1)
    grey("single/cat/a.png", 1)
    grey("loose/cat/a.png", 1)
    grey("loose/dog/a.png", 1)
    grey("loose/b.png", 1)
    grey("splits/train/cat/a.png", 1)
    grey("splits/val/cat/a.png", 1)
    grey("hollow/cat/a.png", 1)
    Path("hollow/dog").mkdir()
    for folder, message in [
        ("flat", "flat holds 0 folders of classes, and at least 2"),
        ("single", "1 folders of classes.*distillation, which needs no labels"),
        ("loose", r"loose/b\.png lies beside the folders"),
        ("splits", r"are splits \(train, val\), not classes: name one"),
        ("hollow", "no images in hollow/dog or below"),
        ("nowhere", "nowhere does not exist"),
    ]:
        with pytest.raises(CompressError, match=message):
            open_labelled_images(folder)


def test_the_name_of_a_dataset_stands_for_its_good_training_images(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(cache: Path, track: object) -> list[Category]:
        return read_mvtec(tiny_dataset, dataset="generated")

    monkeypatch.setitem(DATASETS, "generated", Named(read, "a small one"))
    grey("photos/a.png", 7)
    images = open_images(["generated", "photos"])
    assert len(images) == 2 * 6 + 1  # of each surface the good ones to train on, and nothing to test on
    assert values(images[-1:]) == [7]
    first = pil_to_tensor(Image.open(tiny_dataset / "printed_grid/train/good/000.png").convert("RGB"))
    assert torch.equal(images[0], first)
    assert open_images(["generated"]).fingerprint != images.fingerprint


def test_drawn_images_need_no_files_and_come_last() -> None:
    grey("photos/a.png", 7)
    drawn = open_images(["scenes"])
    assert len(drawn) == DRAWN["scenes"]
    both = open_images(["textures", "photos", "scenes"])
    assert len(both) == 1 + DRAWN["textures"] + DRAWN["scenes"]
    assert values(both[:1]) == [7]
    assert torch.equal(both[-1], drawn[-1])
    assert torch.equal(both[1], open_images(["textures"])[0])
    assert len({images.fingerprint for images in (both, drawn, open_images(["photos"]))}) == 3


def test_a_folder_is_meant_by_its_path_where_its_name_is_taken() -> None:
    grey("scenes/a.png", 9)
    assert values(open_images(["./scenes"])) == [9]
