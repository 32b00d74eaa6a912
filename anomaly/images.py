"""From an image file nobody vouches for to the pixels that a detector sees.

Protocol: RGB, resized to 256 x 256 whatever the aspect ratio, so that no end of a long part is cut off,
then a centre crop of 224 x 224.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from anomaly.errors import AnomalyError
from anomaly.samples import Category, Sample
from prunecore_runtime import images
from prunecore_runtime.errors import ImageError
from prunecore_runtime.images import CROP, SUFFIXES, cropped, resized

MASK_THRESHOLD = 127  # above it a mask's pixel is defective


def read_image(file: Path, *, at_least: int | None = None) -> Image.Image:
    """The image as 8-bit RGB, turned as its EXIF tells. Grey is repeated, transparency dropped, 16 bits become 8.

    16 bits are scaled from 0...65535 to 0...255. Data of 12 bits in a file of 16 therefore comes out dark: spread it
    over the whole range first.
    Where sides of `at_least` pixels are enough, a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size.

    Raises:
        AnomalyError: missing, no image, truncated, over MAX_PIXELS, or of a kind without a known range.
    """
    with _refusals():
        return images.read_image(file, at_least=at_least)


def read_mask(file: Path, size: tuple[int, int]) -> Image.Image:
    """The mask as an 8-bit image of 0 and 255. `size` is the (width, height) that it must have.

    Raises:
        AnomalyError: as `read_image`, or another size, or pixels marked so faintly that none is above 127.
    """
    with _refusals(), images.open_image(file) as image:
        if image.size != size:
            raise AnomalyError(
                f"mask {file} is {image.width} x {image.height} pixels, its image {size[0]} x {size[1]}: "
                "they must be equal; make the mask anew"
            )
        try:
            grey = np.asarray(image.convert("L"))
        except ValueError as error:
            raise AnomalyError(f"mask {file} has pixels of kind {image.mode!r}: save it as 8-bit grey") from error
    if 0 < grey.max() <= MASK_THRESHOLD:
        raise AnomalyError(
            f"mask {file} has no pixel above {MASK_THRESHOLD} (its largest is {grey.max()}): "
            "mark defective pixels with 255"
        )
    return Image.fromarray(np.where(grey > MASK_THRESHOLD, 255, 0).astype(np.uint8))


def load_image(file: Path) -> Tensor:
    """The (3, 224, 224) uint8 pixels that a detector sees."""
    return _pixels(cropped(resized(read_image(file))))


Load = Callable[[Path], Tensor]
"""What `load_image` does, or what keeps its results."""


def load_mask(sample: Sample) -> Tensor:
    """The (224, 224) bool mask of a sample, cut as its image is; all False where it has none."""
    if sample.mask is None:
        return torch.zeros(CROP, CROP, dtype=torch.bool)
    with _refusals(), images.open_image(sample.image, decode=False) as image:
        size = image.size
    mask = cropped(resized(read_mask(sample.mask, size), Image.Resampling.NEAREST))
    return torch.from_numpy(np.asarray(mask) > MASK_THRESHOLD)


def load_masks(category: Category) -> NDArray[np.bool_] | None:
    """The masks (N, 224, 224) of the test split, in its order; None where pixels cannot be judged."""
    return torch.stack([load_mask(sample) for sample in category.test]).numpy() if category.has_masks else None


def load_batches(samples: Sequence[Sample], batch_size: int, load: Load = load_image) -> Iterator[Tensor]:
    """The samples' images in order, as uint8 batches (N, 3, 224, 224), decoded by `load` as they are asked for."""
    for start in range(0, len(samples), batch_size):
        yield torch.stack([load(sample.image) for sample in samples[start : start + batch_size]])


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


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What the runtime refuses, as this package says it."""
    try:
        yield
    except ImageError as error:
        raise AnomalyError(str(error)) from error


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
