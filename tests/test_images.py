"""Images that users really have: every mode, damaged files, masks that do not fit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from anomaly import AnomalyError, Sample
from anomaly.images import list_images, load_batches, load_image, load_mask, normalise, read_image, read_mask
from prunecore_runtime import images as images_module

GREY = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))


def _saved(tmp_path: Path, image: Image.Image, name: str = "image.png") -> Path:
    image.save(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
def test_every_common_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(GREY.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(GREY).convert("RGB").convert(mode)
    read = read_image(_saved(tmp_path, image))
    assert (read.mode, read.size) == ("RGB", (64, 48))
    if mode not in ("1", "P"):
        assert np.array_equal(np.asarray(read)[..., 0], GREY)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tif", ".webp"])
def test_common_formats_are_read(tmp_path: Path, suffix: str) -> None:
    assert read_image(_saved(tmp_path, Image.fromarray(GREY), f"image{suffix}")).size == (64, 48)


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    file = _saved(tmp_path, Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "ink.jpg")
    assert np.asarray(read_image(file)).min() > 250


def test_a_large_jpeg_is_decoded_smaller_where_that_is_enough(tmp_path: Path) -> None:
    file = _saved(tmp_path, Image.new("RGB", (1200, 900), (10, 200, 30)), "large.jpg")
    assert read_image(file).size == (1200, 900)
    assert read_image(file, at_least=256).size == (600, 450)  # a half; a quarter would be 300 x 225
    assert np.abs(np.asarray(read_image(file, at_least=256)).mean((0, 1)) - (10, 200, 30)).max() < 2
    assert read_image(_saved(tmp_path, Image.new("RGB", (1200, 900))), at_least=256).size == (1200, 900)


def test_float_pixels_are_refused_for_their_unknown_range(tmp_path: Path) -> None:
    file = _saved(tmp_path, Image.fromarray(GREY.astype(np.float32)), "depth.tif")
    with pytest.raises(AnomalyError, match=r"depth\.tif has pixels of kind 'F'"):
        read_image(file)


@pytest.mark.parametrize("keep", [0, 10, 60, 200])
@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
def test_damaged_images_are_refused_by_name(tmp_path: Path, name: str, keep: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = _saved(tmp_path, Image.fromarray(noise), name)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(AnomalyError, match=rf"{name} is (truncated|damaged)"):
        read_image(file)


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert list_images(tmp_path) == []
    with pytest.raises(AnomalyError, match=r"a\.png is a pipe: name a file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(AnomalyError, match=r"a\.png is a pipe"):
        load_mask(Sample(tmp_path / "a.png", "crack", tmp_path / "a.png"))


def test_a_text_file_with_an_images_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(AnomalyError, match=r"notes\.png is damaged or no image"):
        read_image(tmp_path / "notes.png")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "MAX_PIXELS", 1000)
    with pytest.raises(AnomalyError, match="64 x 48 pixels, the limit"):
        read_image(_saved(tmp_path, Image.fromarray(GREY)))


def test_a_giant_header_is_refused(tmp_path: Path) -> None:
    file = _saved(tmp_path, Image.new("1", (60_000, 60_000)), "giant.png")
    assert file.stat().st_size < 1_000_000
    with pytest.raises(AnomalyError, match=r"giant\.png.*million"):
        read_image(file)


def test_the_protocol_resizes_to_256_and_crops_224(tmp_path: Path) -> None:
    pixels = np.zeros((256, 256, 3), dtype=np.uint8)
    pixels[16:240, 16:240] = 200
    loaded = load_image(_saved(tmp_path, Image.fromarray(pixels)))
    assert loaded.shape == (3, 224, 224)
    assert loaded.dtype == torch.uint8
    assert (loaded == 200).all()
    wide = load_image(_saved(tmp_path, Image.fromarray(pixels).resize((700, 90)), "wide.png"))
    assert wide.shape == (3, 224, 224)


def test_a_mask_is_cut_as_its_image_is(tmp_path: Path) -> None:
    image = _saved(tmp_path, Image.new("RGB", (512, 512)))
    marked = np.zeros((512, 512), dtype=np.uint8)
    marked[32:64, 32:96] = 255  # at 256 pixels 16...32 x 16...48, after the crop 0...16 x 0...32
    mask = load_mask(Sample(image, "scratch", _saved(tmp_path, Image.fromarray(marked), "mask.png")))
    assert mask.dtype == torch.bool
    assert mask[:16, :32].all()
    assert int(mask.sum()) == 16 * 32
    assert not load_mask(Sample(image, "good")).any()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_seen_as_its_exif_turns_it(tmp_path: Path, suffix: str, orientation: int) -> None:
    """A camera that is held upright stores its rows as columns; the mask is drawn on what a viewer shows."""
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:20, :30, 0] = stored[:20, 30:, 1] = stored[20:, :, 2] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"turned{suffix}"
    Image.fromarray(stored).save(file, exif=exif, quality=95)
    turned = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1]}
    across = stored.swapaxes(0, 1)
    turned |= {5: across, 6: across[:, ::-1], 7: across[::-1, ::-1], 8: across[::-1]}
    seen = np.asarray(read_image(file)).astype(int)
    assert seen.shape == turned[orientation].shape
    assert np.abs(seen - turned[orientation]).mean() < 12  # JPEG and WebP blur edges
    mask = tmp_path / "mask.png"
    Image.fromarray(turned[orientation][:, :, 2].copy()).save(mask)
    shown = load_mask(Sample(file, "scratch", mask)).numpy()
    blue = load_image(file).numpy()[2] > 127
    assert (shown == blue).mean() > 0.98


def test_sixteen_bits_are_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = np.zeros((40, 60), np.uint16)
    stored[:, :30] = 200 << 8
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    seen = np.asarray(read_image(tmp_path / "a.png"))
    assert seen.shape == (60, 40, 3)
    assert (seen[:30] == 200).all()
    assert (seen[30:] == 0).all()


def test_for_a_size_only_the_header_of_a_png_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: pytest.fail("decoded"))
    assert images_module.open_image(tmp_path / "a.png", decode=False).size == (40, 20)


def test_an_image_is_turned_though_the_rest_of_its_exif_is_damaged(tmp_path: Path) -> None:
    """Orientation 6, and a second entry of a type that there is not."""
    entries = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00" + b"\x01\x31\x00\x63\xff\xff\xff\xff\x00\x00\x00\x00"
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x02" + entries + b"\x00\x00\x00\x00"
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (20, 40)


def test_damage_in_exif_is_no_damage_of_the_pixels(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    Image.new("RGB", (40, 20), "red").save(file, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert read_image(file).size == (40, 20)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    mask = _saved(tmp_path, Image.new("L", (10, 20)), "mask.png")
    with pytest.raises(AnomalyError, match=r"mask\.png is 10 x 20 pixels, its image 20 x 10"):
        read_mask(mask, (20, 10))


def test_a_mask_of_zeros_and_ones_is_refused_and_not_read_as_empty(tmp_path: Path) -> None:
    mask = _saved(tmp_path, Image.fromarray(np.eye(8, dtype=np.uint8)), "mask.png")
    with pytest.raises(AnomalyError, match=r"no pixel above 127 \(its largest is 1\)"):
        read_mask(mask, (8, 8))


def test_batches_keep_the_order(tmp_path: Path) -> None:
    samples = [Sample(_saved(tmp_path, Image.new("L", (8, 8), value), f"{value}.png"), "good") for value in range(5)]
    batches = list(load_batches(samples, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.cat(batches)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_normalise_by_hand() -> None:
    batch = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    assert normalise(batch, (0.5, 0.5, 0.2), (0.5, 0.25, 1.0)).flatten().tolist() == pytest.approx([-1, 2, 0], abs=1e-6)


def test_only_images_are_listed(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [file.name for file in list_images(tmp_path)] == ["a.jpg", "b.PNG"]


def test_what_is_called_png_and_is_no_image_of_the_known_formats_is_refused(tmp_path: Path) -> None:
    """PostScript above all: Pillow would start another program to draw it."""
    for kind in ("EPS", "GIF", "PDF"):
        Image.fromarray(GREY).convert("RGB").save(tmp_path / "a.png", format=kind)
        with pytest.raises(AnomalyError, match=r"no image \(PNG, JPEG, BMP, TIFF and WebP are read\)"):
            read_image(tmp_path / "a.png")


def test_lab_colours_which_pillow_cannot_convert_are_refused(tmp_path: Path) -> None:
    file = _saved(tmp_path, Image.new("LAB", (8, 8)), "lab.tif")
    with pytest.raises(AnomalyError, match=r"lab\.tif has pixels of kind 'LAB'"):
        read_image(file)
    with pytest.raises(AnomalyError, match=r"mask .*lab\.tif has pixels of kind 'LAB'"):
        read_mask(file, (8, 8))


def test_sixteen_bits_of_either_byte_order_become_the_same_rgb(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 257
    little = _saved(tmp_path, Image.fromarray(deep), "little.tif")
    big = _saved(tmp_path, Image.frombytes("I;16B", deep.shape[::-1], deep.astype(">u2").tobytes()), "big.tif")
    assert np.array_equal(np.asarray(read_image(little))[..., 1], GREY)
    assert np.array_equal(np.asarray(read_image(big)), np.asarray(read_image(little)))
