"""A histogram of a stream: the range need not be known before, and memory does not grow with it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from compress.errors import CompressError

BINS = 8192  # half of them are in use at least: a bin is then 1/16 of a step of uint8


class Histogram:
    """Counts of values in bins whose width is a power of two, zero always at an edge.

    A value beyond the bins doubles their width, as often as is needed: neighbours are joined in pairs, which is exact,
    so counts do not depend on the order in which values come.

    Attributes:
        low, high: the smallest and the largest value so far, exact.
        total: number of values.
        zeros: how many of them are exactly zero, which every range represents.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.total = self.zeros = 0
        self._exponent = 0  # the width is 2 ** exponent
        self._first = 0  # bin 0 covers [first, first + 1) widths
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count `values`, of any shape.

        Raises:
            CompressError: one of them is not finite.
        """
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CompressError("an activation is not finite on a calibration image: the backbone is damaged")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._cover()
        places = np.floor(values.reshape(-1) * np.float32(2.0**-self._exponent)).astype(np.int64) - self._first
        self._counts += np.bincount(places, minlength=len(self._counts))
        self.total += values.size
        self.zeros += values.size - int(np.count_nonzero(values))

    @property
    def width(self) -> float:
        """Of a bin."""
        return float(2.0**self._exponent)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The bins' borders, one more than there are bins."""
        places: NDArray[np.float64] = np.arange(len(self._counts) + 1, dtype=np.float64) + self._first
        return places * self.width

    @property
    def counts(self) -> NDArray[np.int64]:
        """Values in each bin."""
        return self._counts

    @property
    def counts_but_zeros(self) -> NDArray[np.int64]:
        """Values in each bin, those that are exactly zero left out."""
        counts = self._counts.copy()
        counts[-self._first] -= self.zeros
        return counts

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return self.edges[:-1] + self.width / 2

    def quantile(self, share: float) -> float:
        """The value that `share` of all values lie below, to within a bin and never beyond low and high."""
        below = np.concatenate([[0], np.cumsum(self._counts)])
        return float(np.clip(np.interp(share * self.total, below, self.edges), self.low, self.high))

    def _cover(self) -> None:
        """Widen or add bins until they cover low, high and zero."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        exponent = self._exponent if len(self._counts) else math.ceil(math.log2(max(high - low, 1e-30) / BINS))
        while math.floor(high * 2.0**-exponent) - math.floor(low * 2.0**-exponent) + 1 > BINS:
            exponent += 1
        first = math.floor(low * 2.0**-exponent)
        bins = math.floor(high * 2.0**-exponent) - first + 1
        if (exponent, first, bins) == (self._exponent, self._first, len(self._counts)):
            return
        counts = np.zeros(bins, np.int64)
        places = (self._first + np.arange(len(self._counts))) >> (exponent - self._exponent)
        np.add.at(counts, places - first, self._counts)
        self._exponent, self._first, self._counts = exponent, first, counts
