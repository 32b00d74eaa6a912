"""The user's images as a training set: checked, split, drawn in batches that follow from seed and step alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compress.augment import centre_view, industrial, random_crop
from compress.errors import CompressError
from compress.image_kinds import require_image, require_sequence
from compress.training.recipe import Recipe

HELD_OUT = (8, 64)  # images, at least and at most, that a held-out share means
LEAST_TRAINED = 16  # images; a batch that is larger holds some of them twice, in other crops
_SPLIT, _ORDER, _CROP = range(3)  # streams of random numbers


class Batch(NamedTuple):
    """Images float32 (N, 3, S, S), normalised; labels int64 (N,), or None where none were asked for."""

    images: Tensor
    labels: Tensor | None


class TrainingSet:
    """Training batches and held-out batches of the user's images.

    The images are gone through in a new order each epoch. Step t's batch follows from (seed, t), never from what
    was drawn before, so that a training continued at step t sees what an unbroken one would have seen.

    Args:
        images: uint8 RGB (3, H, W) of any sizes or, if `labelled`, pairs of such an image and its class's number.
        mean, std: of RGB in [0, 1], to normalise with.
        batch: images a step.
        crop: side of the training crops, in pixels.
        area: least and largest share of an image's area that a crop covers.
        holdout: share of the images kept for checks, in [0, 1): at least 8, at most 64; 0 keeps none.

    Raises:
        CompressError: `images` is no sequence of such images, or holds too few.
    """

    def __init__(
        self,
        images: Sequence[Any],
        *,
        labelled: bool,
        mean: Sequence[float],
        std: Sequence[float],
        batch: int,
        crop: int,
        area: tuple[float, float],
        holdout: float,
        seed: int,
    ) -> None:
        require_sequence(images)
        if len(images) == 0:
            raise CompressError("no images given: add photographs to train on")
        held = min(max(round(holdout * len(images)), HELD_OUT[0]), HELD_OUT[1]) if holdout else 0
        least = min(batch, LEAST_TRAINED)
        if len(images) < held + least:
            raise CompressError(
                f"{len(images)} images are too few to train on: {held + least} are needed, {held} held out for checks "
                f"and {least} for batches; add images"
            )
        self._images, self._labelled = images, labelled
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self._batch, self._crop, self._area, self._seed = batch, crop, area, seed
        places = self._rng(_SPLIT).permutation(len(images))
        self._held, self._train = places[:held], places[held:]
        self._views: list[Tensor] = []
        self._labels: list[int] = []
        self._read(0)  # images of a wrong kind are refused before any work

    @classmethod
    def of(
        cls,
        images: Sequence[Any],
        recipe: Recipe,
        *,
        labelled: bool = False,
        mean: Sequence[float] = (0, 0, 0),
        std: Sequence[float] = (1, 1, 1),
        seed: int = 0,
    ) -> TrainingSet:
        """The images, as `recipe` wants to train on them."""
        return cls(
            images,
            labelled=labelled,
            mean=mean,
            std=std,
            batch=recipe.batch,
            crop=recipe.crop,
            area=recipe.area,
            holdout=recipe.holdout,
            seed=seed,
        )

    def batch(self, step: int) -> Batch:
        """The crops of one step, (batch, 3, crop, crop)."""
        crops, labels = [], []
        rng = self._rng(_CROP, step)
        for place in self._places(step):
            image, label = self._read(place)
            crops.append(industrial(random_crop(image, self._crop, self._area, rng), rng))
            labels.append(label)
        return self._made(crops, labels)

    def first_batches(self) -> list[Tensor]:
        """The images of the first four steps, which the scales of a loss are measured on."""
        return [self.batch(step).images for step in range(4)]

    def held_out(self) -> Iterator[Batch]:
        """The centre views of the held-out images, (up to `batch`, 3, 224, 224); none if no share is held out."""
        if not self._views:  # drawn once, when first asked for
            for place in self._held:
                image, label = self._read(int(place))
                self._views.append(centre_view(image))
                self._labels.append(label)
        for first in range(0, len(self._views), self._batch):
            part = slice(first, first + self._batch)
            yield self._made(self._views[part], self._labels[part])

    def views(self, step: int) -> Batch:
        """The centre views of the images that make the batch of that step, (batch, 3, 224, 224)."""
        images, labels = zip(*(self._read(place) for place in self._places(step)), strict=True)
        return self._made([centre_view(image) for image in images], labels)

    def classes(self) -> int:
        """Number of classes: what the images' own `classes` lists, else one more than the largest label.

        Raises:
            CompressError: fewer than two are listed or, without a list, fewer than two have images.
        """
        listed = getattr(self._images, "classes", None)
        every = range(len(self._images))
        numbers = range(len(listed)) if listed is not None else {self._read(place)[1] for place in every}
        if len(numbers) < 2:
            raise CompressError("all images have one label: 2 classes are needed; or distill, which needs no labels")
        return 1 + max(numbers)

    def fingerprint(self) -> str:
        """SHA-256 that tells these images from others: their own `fingerprint` if they have one, else of 16 of them."""
        own = getattr(self._images, "fingerprint", None)
        if isinstance(own, str):
            return own
        digest = hashlib.sha256(str(len(self._images)).encode())
        for place in np.linspace(0, len(self._images) - 1, 16).astype(int):
            image, label = self._read(int(place))
            digest.update(f"{tuple(image.shape)} {label}".encode() + image.numpy().tobytes())
        return digest.hexdigest()

    def _places(self, step: int) -> list[int]:
        """Which images make the batch of that step."""
        drawn = range(step * self._batch, (step + 1) * self._batch)
        each = len(self._train)
        orders = {epoch: self._rng(_ORDER, epoch).permutation(self._train) for epoch in {n // each for n in drawn}}
        return [int(orders[n // each][n % each]) for n in drawn]

    def _read(self, place: int) -> tuple[Tensor, int]:
        item = self._images[place]
        if self._labelled and not (isinstance(item, tuple) and len(item) == 2):
            raise CompressError(
                f"image {place} has no label: give pairs of image and class (an ImageFolder), or distill, "
                "which needs none"
            )
        if not self._labelled and isinstance(item, tuple):
            raise CompressError(f"image {place} comes with a label, and none are needed: give the images alone")
        image, label = item if self._labelled else (item, -1)
        image = require_image(image, place)
        number = _whole(label)
        if number is None:
            raise CompressError(f"image {place} has the label {label!r}: give its class as a whole number, from 0")
        if self._labelled and number < 0:
            raise CompressError(f"image {place} has the label {label}: classes are numbered from 0")
        return image, number

    def _made(self, views: Sequence[Tensor], labels: Sequence[int]) -> Batch:
        images = torch.stack(list(views)).float().div_(255).sub_(self._mean).div_(self._std)
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, torch.tensor(labels) if self._labelled else None)

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, *stream))


def _whole(label: Any) -> int | None:
    """`label` as an integer, whatever kind of number it is; None if it is none or has a fraction."""
    try:
        return int(label) if int(label) == label else None
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last from tensors
        return None
