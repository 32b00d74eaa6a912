"""Images, masks, folders of images, datasets, and what the detector keeps of them on disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from anomaly import AnomalyError, fingerprint, open_dataset
from anomaly.feature_file import FeatureFile
from anomaly.images import load_image, load_masks, read_image, read_mask
from anomaly.memory_bank import MemoryBank
from benchmarks.fuzz.containers import damaged_png
from benchmarks.fuzz.damage import damaged, damaged_json
from benchmarks.fuzz.reader import MIB, Reader, clear, in_a_file, lay_odd
from compress import CompressError
from pipelines.image_sets import open_images, open_labelled_images

_SIZE = 24, 18
_PIXELS = 3000 * MIB  # an image of 178 megapixels, the limit, and its copies on the way to RGB
_NAMES = (
    b"\xff\xfe.png",
    b"new\nline.png",
    b"-o.png",
    b".hidden.png",
    b"\x1b[2J.png",
    b"x" * 250 + b".png",
    b"a b.PNG",
)


def _encoded(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def pictures() -> list[bytes]:
    """Small images of every format and kind of pixel that is read, and of some that are not."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (*_SIZE[::-1], 3), dtype=np.uint8))
    grey, deep = colour.convert("L"), Image.fromarray(rng.integers(0, 65536, _SIZE[::-1], dtype=np.uint16))
    kinds = [colour.convert(mode) for mode in ("1", "L", "P", "LA", "RGB", "RGBA")]
    found = [_encoded(each, format="PNG") for each in [*kinds, deep]]
    found += [_encoded(each, format="JPEG", progressive=p) for each in (grey, colour) for p in (False, True)]
    found += [_encoded(colour.convert("CMYK"), format="JPEG"), _encoded(colour, format="MPO")]
    found += [_encoded(each, format="BMP") for each in (colour, grey, kinds[0], kinds[2], kinds[5])]
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4", "zstd"):
        wanted = (kinds[0],) if compression == "group4" else (colour, grey)
        found += [_encoded(each, format="TIFF", compression=compression) for each in wanted]
    odd = [deep, colour.convert("LAB"), colour.convert("YCbCr"), colour.convert("CMYK"), grey.convert("F"), kinds[2]]
    found += [_encoded(each, format="TIFF") for each in odd]
    found.append(_encoded(colour, format="TIFF", save_all=True, append_images=[grey, deep]))
    found += [_encoded(colour, format="WEBP", lossless=lossless) for lossless in (False, True)]
    found.append(_encoded(kinds[5], format="WEBP", save_all=True, append_images=[kinds[5]]))
    others = [_encoded(colour, format=name) for name in ("GIF", "PPM", "TGA", "ICO", "EPS", "PCX", "PDF", "JPEG2000")]
    return found + others


def damaged_picture(rng: Random, seeds: list[bytes]) -> bytes:
    """Bytes of any seed, or chunks of a PNG with right checksums."""
    seed = rng.choice(seeds)
    return damaged_png(rng, seed) if seed[:4] == b"\x89PNG" and rng.random() < 0.4 else damaged(rng, seed, seeds)


def image(workshop: Path) -> Reader:
    """What predict, evaluate and fit read images with, and what trainings do."""
    seeds = pictures()

    def read(place: Path) -> object:
        read_image(place, at_least=8)
        return load_image(place)

    return Reader(".png", in_a_file(lambda rng: damaged_picture(rng, seeds)), read, (AnomalyError,), _PIXELS)


def mask(workshop: Path) -> Reader:
    """Ground-truth masks."""
    seeds = pictures()

    def read(place: Path) -> object:
        return read_mask(place, _SIZE)

    return Reader(".png", in_a_file(lambda rng: damaged_picture(rng, seeds)), read, (AnomalyError,), _PIXELS)


def _harmed_folder(rng: Random, whole: Path, place: Path, seeds: list[bytes]) -> None:
    """A copy of `whole` with one to three files or folders gone, moved, linked, piped, damaged or oddly named."""
    shutil.copytree(whole, place)
    for _ in range(rng.randint(1, 3)):
        inside = sorted(place.rglob("*"))
        if not inside:
            return
        chosen = rng.choice(inside)
        kind = rng.randrange(8)
        if chosen.is_symlink() or not (chosen.is_file() or chosen.is_dir()):
            continue
        if kind == 0 and chosen.is_file():
            chosen.write_bytes(damaged_picture(rng, seeds))
        elif kind == 1:
            _rename(chosen, os.fsencode(rng.choice(("good", "test", "train", "masks", "bad", "é"))))
        elif kind == 2:
            _rename(chosen, rng.choice(_NAMES))
        elif kind == 3:
            clear(chosen)
            chosen.symlink_to(rng.choice((".", "..", "/", "/dev/zero", chosen.name, str(place), "/etc/passwd")))
        elif kind == 4:
            clear(chosen)
            lay_odd(rng, chosen)
        elif kind == 5:
            clear(chosen)
        elif kind == 6 and chosen.is_file():
            chosen.write_bytes(rng.choice(seeds))
        elif chosen.is_dir():
            (chosen / f"deep{len(inside)}").mkdir(exist_ok=True)


def _rename(place: Path, name: bytes) -> None:
    named = os.path.join(os.fsencode(place.parent), name)  # noqa: PTH118 a Path takes no bytes
    if not os.path.lexists(named):
        os.rename(place, named)  # noqa: PTH104


def dataset(workshop: Path) -> Reader:
    """A folder in one of the two layouts: opened, fingerprinted, every image and mask read."""
    seeds = pictures()
    layouts = [workshop / "mvtec", workshop / "folder"]
    for place in ("mvtec/a/train/good", "mvtec/a/test/good", "mvtec/a/test/bad", "folder/good", "folder/bad"):
        (workshop / place).mkdir(parents=True)
        for number in range(3):
            (workshop / place / f"{number}.png").write_bytes(seeds[4])
    for place in ("mvtec/a/ground_truth/bad", "folder/masks"):
        (workshop / place).mkdir(parents=True)
        for number in range(3):
            (workshop / place / f"{number}.png").write_bytes(_encoded(Image.new("L", _SIZE, 255), format="PNG"))

    def harm(rng: Random, place: Path) -> None:
        _harmed_folder(rng, rng.choice(layouts), place, seeds)

    def read(place: Path) -> object:
        for category in open_dataset(str(place), cache=workshop):
            fingerprint(category)
            for sample in (*category.train, *category.test):
                load_image(sample.image)
            load_masks(category)
        return None

    return Reader("", harm, read, (AnomalyError,), _PIXELS)


def image_set(workshop: Path) -> Reader:
    """Folders of images to train and to calibrate on, with and without classes."""
    seeds = pictures()
    for name in ("cat", "dog"):
        (workshop / "classes" / name / "nested").mkdir(parents=True)
        for number in range(2):
            (workshop / "classes" / name / f"{number}.png").write_bytes(seeds[4])
            (workshop / "classes" / name / "nested" / f"{number}.jpg").write_bytes(seeds[9])

    def read(place: Path) -> object:
        try:
            list(open_labelled_images(place))
        finally:
            list(open_images([place]))
        return None

    def harm(rng: Random, place: Path) -> None:
        _harmed_folder(rng, workshop / "classes", place, seeds)

    return Reader("", harm, read, (CompressError, AnomalyError), _PIXELS)


def features(workshop: Path) -> Reader:
    """Patch features that an interrupted fit left on disk."""
    file = FeatureFile(workshop / "features", {"of": "fuzz"})
    for _ in range(2):
        file.append(torch.rand(5, 4))
    (lines,) = (workshop / "features").glob("*.blocks")

    def harm(rng: Random, place: Path) -> None:
        shutil.copytree(workshop / "features", place)
        chosen = rng.choice(sorted(place.iterdir()))
        kind = rng.randrange(4)
        if kind == 0:
            chosen.unlink()
            lay_odd(rng, chosen)
        elif kind == 1:
            chosen.write_bytes(damaged(rng, chosen.read_bytes()))
        else:
            heading, *blocks = lines.read_text().splitlines()
            place_of = rng.randrange(len(blocks))
            blocks[place_of] = damaged_json(rng, json.loads(blocks[place_of])).replace("\n", " ")
            (place / lines.name).write_text("\n".join([heading, *blocks, ""]), errors="surrogatepass")

    def read(place: Path) -> object:
        found = FeatureFile(place, {"of": "fuzz"})
        return found[0 : len(found)] if len(found) else found.shape

    return Reader("", harm, read, (AnomalyError,))


def bank(workshop: Path) -> Reader:
    """A memory bank's folder: the exact one, and a FAISS index."""
    vectors = torch.rand(300, 8, generator=torch.Generator().manual_seed(0))
    MemoryBank(vectors).save(workshop / "exact")
    MemoryBank(vectors, index="IVF4,Flat").save(workshop / "ivf")
    queries = vectors[:3]

    def harm(rng: Random, place: Path) -> None:
        shutil.copytree(workshop / rng.choice(("exact", "ivf")), place)
        header = json.loads((place / "bank.json").read_text())
        kind = rng.randrange(4)
        if kind == 0:
            chosen = rng.choice(sorted(place.iterdir()))
            chosen.unlink()
            lay_odd(rng, chosen)
        elif kind == 1:
            text = damaged_json(rng, header)
            (place / "bank.json").write_text(text, errors="surrogatepass")
        else:
            part = rng.choice(("index", "images"))
            file = place / header["files"][part]["name"]
            content = damaged(rng, file.read_bytes())
            file.write_bytes(content)
            if kind == 3 and (part == "images" or header["index"] == "exact"):  # FAISS trusts what it reads
                header["files"][part].update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
                (place / "bank.json").write_text(json.dumps(header))

    def read(place: Path) -> object:
        return MemoryBank.load(place).search(queries, 1)

    return Reader("", harm, read, (AnomalyError,))


READERS: dict[str, Callable[[Path], Reader]] = {
    "image": image,
    "mask": mask,
    "dataset": dataset,
    "image-set": image_set,
    "features": features,
    "bank": bank,
}
