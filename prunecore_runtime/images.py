"""From an image file nobody vouches for to the pixels that a detector sees.

Protocol: RGB, resized to 256 x 256 whatever the aspect ratio, so that no end of a long part is cut off,
then a centre crop of 224 x 224.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from prunecore_runtime.errors import ImageError
from prunecore_runtime.regular_file import why_no_file

RESIZE = 256
CROP = 224
MARGIN = (RESIZE - CROP) // 2  # pixels that the crop leaves out at each side
MAX_PIXELS = 178_000_000  # a 151-megapixel camera passes, a decompression bomb does not; Pillow refuses 179 million
_LARGEST = 8 * MAX_PIXELS  # bytes: four channels of 16 bits, not packed
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# What these hold, whatever they are called. Pillow would try 40 formats more, and start Ghostscript for one of them.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_READ = "PNG, JPEG, BMP, TIFF and WebP are read"

# Modes that stand for a colour or grey image of 8 bits a channel.
_EIGHT_BIT = {"RGB", "L", "P", "1", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "RGBX"}
_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
# By the orientation in EXIF; 1 is upright. Pillow's exif_transpose writes the EXIF anew, and fails where it is damaged.
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF = {"exif", "Raw profile type exif"}  # where Pillow keeps it, once a PNG's header is read


def read_image(file: Path, *, at_least: int | None = None) -> Image.Image:
    """The image as 8-bit RGB, turned as its EXIF tells. Grey is repeated, transparency dropped, 16 bits become 8.

    16 bits are scaled from 0...65535 to 0...255. Data of 12 bits in a file of 16 therefore comes out dark: spread it
    over the whole range first.
    Where sides of `at_least` pixels are enough, a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size.

    Raises:
        ImageError: missing, no file (a folder, a pipe, a device), no image, truncated, without pixels, over MAX_PIXELS,
            or of a kind without a known range.
    """
    with open_image(file, at_least=at_least) as image:
        if image.mode in _EIGHT_BIT:
            return image.convert("RGB")
        if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG"):
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        raise ImageError(
            f"image {file} has pixels of kind {image.mode!r}, of unknown range: save it with 8 or 16 bits a channel"
        )


def open_image(file: Path, *, decode: bool = True, at_least: int | None = None) -> Image.Image:
    """The image in its own mode, turned as its EXIF tells; only the header of an upright one is read, unless `decode`.

    Raises:
        ImageError: missing, no file (a folder, a pipe, a device), no image, truncated, without pixels, or over
            MAX_PIXELS.
    """
    try:
        if complaint := why_no_file(file, most=_LARGEST):
            raise ImageError(f"image {complaint}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning: the limit is checked here
            image: Image.Image = Image.open(file, formats=FORMATS)
            if not image.width * image.height:
                raise ImageError(f"image {file} has {image.width} x {image.height} pixels: replace or remove it")
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"image {file} has {image.width} x {image.height} pixels, the limit is "
                    f"{MAX_PIXELS // 1_000_000} million: cut or shrink it"
                )
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            if decode or _turn(image, decode=False) is not None:
                image.load()
                if (turn := _turn(image)) is not None:  # Pillow itself turns a TIFF, as it is decoded
                    kind, image = image.format, image.transpose(turn)
                    image.format = kind
        return image
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"image {file} does not exist") from error
    except PermissionError as error:
        raise ImageError(f"image {file} may not be read: change its permissions") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"image {file} is over the limit of {MAX_PIXELS // 1_000_000} million pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"image {file} is damaged or no image ({_READ}): replace or remove it") from error
    except Exception as error:  # Pillow's decoders raise ten kinds on damaged files, and each version others
        raise ImageError(f"image {file} is truncated or damaged ({error}): replace or remove it") from error


def _turn(image: Image.Image, *, decode: bool = True) -> Image.Transpose | None:
    """What brings the pixels from how the camera was held to how they are to be seen.

    A PNG may tell it behind its pixels; unless `decode`, that is not looked for.
    """
    if image.format == "PNG" and not decode and not _EXIF.intersection(image.info):
        return None
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # damage there says nothing of the pixels
        return None


def resized(image: Image.Image, resampling: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
    """The image at 256 x 256 pixels."""
    return image.resize((RESIZE, RESIZE), resampling)


def cropped(image: Image.Image) -> Image.Image:
    """The centre of a resized image, 224 x 224 pixels."""
    return image.crop((MARGIN, MARGIN, MARGIN + CROP, MARGIN + CROP))
