"""From an image file nobody vouches for to the pixels that a detector sees.

Protocol: RGB, resized to 256 x 256 whatever the aspect ratio, so that no end of a long part is cut off,
then a centre crop of 224 x 224.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from anomaly.errors import AnomalyError
from anomaly.samples import Sample

RESIZE = 256
CROP = 224
MAX_PIXELS = 178_000_000  # a 151-megapixel camera passes, a decompression bomb does not; Pillow refuses 179 million
MASK_THRESHOLD = 127  # above it a mask's pixel is defective
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

# Modes that stand for a colour or grey image of 8 bits a channel.
_EIGHT_BIT = {"RGB", "L", "P", "1", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"}
_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}


def read_image(file: Path, *, at_least: int | None = None) -> Image.Image:
    """The image as 8-bit RGB. Grey is repeated, transparency dropped, 16 bits scaled from 0...65535 to 0...255.

    Data of 12 bits in a file of 16 therefore comes out dark: spread it over the whole range first.
    Where sides of `at_least` pixels are enough, a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size.

    Raises:
        AnomalyError: missing, no image, truncated, over MAX_PIXELS, or of a kind without a known range.
    """
    with _opened(file, at_least=at_least) as image:
        if image.mode in _EIGHT_BIT:
            return image.convert("RGB")
        if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG"):
            return Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8)).convert("RGB")
        raise AnomalyError(
            f"image {file} has pixels of kind {image.mode!r}, of unknown range: save it with 8 or 16 bits a channel"
        )


def read_mask(file: Path, size: tuple[int, int]) -> Image.Image:
    """The mask as an 8-bit image of 0 and 255. `size` is the (width, height) that it must have.

    Raises:
        AnomalyError: as `read_image`, or another size, or pixels marked so faintly that none is above 127.
    """
    with _opened(file) as image:
        if image.size != size:
            raise AnomalyError(
                f"mask {file} is {image.width} x {image.height} pixels, its image {size[0]} x {size[1]}: "
                "they must be equal; make the mask anew"
            )
        grey = np.asarray(image.convert("L"))
    if 0 < grey.max() <= MASK_THRESHOLD:
        raise AnomalyError(
            f"mask {file} has no pixel above {MASK_THRESHOLD} (its largest is {grey.max()}): "
            "mark defective pixels with 255"
        )
    return Image.fromarray(np.where(grey > MASK_THRESHOLD, 255, 0).astype(np.uint8))


def load_image(file: Path) -> Tensor:
    """The (3, 224, 224) uint8 pixels that a detector sees."""
    return _pixels(_resize_and_crop(read_image(file), Image.Resampling.BILINEAR))


def load_mask(sample: Sample) -> Tensor:
    """The (224, 224) bool mask of a sample, cut as its image is; all False where it has none."""
    if sample.mask is None:
        return torch.zeros(CROP, CROP, dtype=torch.bool)
    with _opened(sample.image, decode=False) as image:
        size = image.size
    mask = _resize_and_crop(read_mask(sample.mask, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.asarray(mask) > MASK_THRESHOLD)


def load_batches(samples: Sequence[Sample], batch_size: int) -> Iterator[Tensor]:
    """The samples' images in order, as uint8 batches (N, 3, 224, 224), decoded as they are asked for."""
    for start in range(0, len(samples), batch_size):
        yield torch.stack([load_image(sample.image) for sample in samples[start : start + batch_size]])


def normalise(batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 RGB (N, 3, H, W) to float32 with the given mean and standard deviation (of RGB in [0, 1])."""
    shape = (1, 3, 1, 1)
    centred = batch.float().div(255) - torch.tensor(mean, device=batch.device).view(shape)
    return centred / torch.tensor(std, device=batch.device).view(shape)


def list_images(folder: Path) -> list[Path]:
    """The image files right in `folder`, by name; hidden files are passed over."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _opened(file: Path, *, decode: bool = True, at_least: int | None = None) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning: the limit is checked here
            image = Image.open(file)
            if image.width * image.height > MAX_PIXELS:
                raise AnomalyError(
                    f"image {file} has {image.width} x {image.height} pixels, the limit is "
                    f"{MAX_PIXELS // 1_000_000} million: cut or shrink it"
                )
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            if decode:
                image.load()
        return image
    except AnomalyError:
        raise
    except FileNotFoundError as error:
        raise AnomalyError(f"image {file} does not exist") from error
    except PermissionError as error:
        raise AnomalyError(f"image {file} may not be read: change its permissions") from error
    except Image.DecompressionBombError as error:
        raise AnomalyError(f"image {file} is over the limit of {MAX_PIXELS // 1_000_000} million pixels") from error
    except UnidentifiedImageError as error:
        raise AnomalyError(f"image {file} is damaged or no image: replace or remove it") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError, TypeError, KeyError) as error:
        # Pillow's decoders raise all of these on damaged files.
        raise AnomalyError(f"image {file} is truncated or damaged ({error}): replace or remove it") from error


def _resize_and_crop(image: Image.Image, resampling: Image.Resampling) -> Image.Image:
    margin = (RESIZE - CROP) // 2
    return image.resize((RESIZE, RESIZE), resampling).crop((margin, margin, margin + CROP, margin + CROP))


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
