"""One measured run: its row of results, its example images, and how a row's fields are read safely."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reports.errors import ReportError
from reports.scores import Scores

NA = "n/a"
_TINIEST, _HUGEST = 1e-12, 1e18  # an axis cannot be drawn from numbers far outside


@dataclass(frozen=True, eq=False)
class Examples:
    """A few test images, and what this run made of them.

    `images` is uint8 (k, H, W, 3); `masks` bool (k, H, W), or None where the dataset has none; `maps` float (k, H, W);
    `scores` float (k,). `low` and `high` are the run's own heat-map range: each backbone has its own distance scale.

    Raises:
        ReportError: the arrays do not describe the same k images.
    """

    names: list[str]
    kinds: list[str]
    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_] | None
    maps: npt.NDArray[np.float32]
    scores: npt.NDArray[np.floating[Any]]
    low: float
    high: float

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.images.ndim != 4 or self.images.shape[0] != count or self.images.shape[3] != 3:
            raise ReportError(f"example images of shape {self.images.shape}: give ({count}, height, width, 3)")
        if not self.images.size:
            raise ReportError(f"example images of shape {self.images.shape}: none may be empty")
        for what, array, kind in (
            ("heat maps", self.maps, "f"),
            ("scores", self.scores, "f"),
            ("masks", self.masks, "b"),
        ):
            if array is not None and array.dtype.kind != kind:
                raise ReportError(f"{what} of type {array.dtype}: give {'floats' if kind == 'f' else 'bool'}")
        if self.scores.shape != (count,):
            raise ReportError(f"scores of shape {self.scores.shape}: give ({count},)")
        if self.images.dtype != np.uint8:
            raise ReportError(f"example images of type {self.images.dtype}: give uint8, 0 to 255")
        shape = self.images.shape[:3]
        if self.maps.shape != shape:
            raise ReportError(f"heat maps of shape {self.maps.shape} for images {shape}: resize them to the images")
        if self.masks is not None and self.masks.shape != shape:
            raise ReportError(f"masks of shape {self.masks.shape} for images {shape}: resize them, or give None")
        if len(self.kinds) != count:
            raise ReportError(f"{len(self.kinds)} kinds for {count} images: give {count}")


@dataclass(frozen=True, eq=False)
class Run:
    """A row of results and, where they were kept, its example images and the scores of all."""

    row: dict[str, Any]
    examples: Examples | None = None
    scores: Scores | None = None


def number(row: Mapping[str, Any], name: str) -> float | None:
    """The field as a number; None where it is missing or no `sane` one.

    >>> number({"aupro": 0.5}, "aupro"), number({"aupro": float("nan")}, "aupro"), number({}, "aupro")
    (0.5, None, None)
    """
    return sane(row.get(name))


def sane(value: object) -> float | None:
    """`value` as a number; None where it is none, not finite, or of a size that no quantity here has.

    >>> sane(1), sane(True), sane("1"), sane(1e300)
    (1.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if result == 0 or _TINIEST <= abs(result) <= _HUGEST else None


def text(row: Mapping[str, Any], name: str) -> str:
    """The field as one printable line; `n/a` where it is missing or empty."""
    value = row.get(name)
    return NA if value is None else one_line(str(value)) or NA


def plural(n: int, one: str, many: str) -> str:
    """
    >>> plural(1, "run", "runs"), plural(0, "run", "runs")
    ('1 run', '0 runs')
    """
    return f"{n} {one if n == 1 else many}"


def one_line(value: str) -> str:
    """Without control characters and lone surrogates, which neither a table nor a figure can hold.

    >>> one_line(" bottle\\n\\x00cap ")
    'bottle cap'
    """
    legal = value.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(c if c.isprintable() else " " for c in legal).split())
