"""What a column of a table is, as data. A new column is one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from typing import Literal

Better = Literal["higher", "lower"]


class Where(Flag):
    """The tables a column is in."""

    SUMMARY = auto()
    CATEGORY = auto()
    BRIEF = auto()  # the summary in a narrow terminal


def count(value: float) -> str:
    """
    >>> count(11_689_512), count(157_000), count(1_824_033_792), count(999_999_999), count(1_568)
    ('11.69 M', '0.16 M', '1.82 G', '1.00 G', '1,568')
    """
    if value >= 999_995_000:
        return f"{value / 1e9:.2f} G"
    return f"{value / 1e6:.2f} M" if value >= 100_000 else f"{value:,.0f}"


def size(value: float) -> str:
    """
    >>> size(2_812_345), size(812), size(999_999), size(1.2e9)
    ('2.8 MB', '812 B', '1.0 MB', '1.2 GB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale * 0.99995:
            return f"{value / scale:.1f} {unit}"
    return f"{value:.0f} B"


def milliseconds(value: float) -> str:
    """
    >>> milliseconds(1.567), milliseconds(17.71), milliseconds(123.4)
    ('1.57 ms', '17.7 ms', '123 ms')
    """
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f} ms"


def tick(value: float, unit: Callable[[float], str]) -> str:
    """A round value in its unit, for an axis.

    >>> tick(30e6, count), tick(2.5e9, count), tick(4e6, size)
    ('30 M', '2.5 G', '4 MB')
    """
    digits, _, suffix = unit(value).partition(" ")
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} {suffix}".strip()


def metric(value: float) -> str:
    return f"{value:.3f}"


@dataclass(frozen=True)
class Factor:
    """A comparison by division, told as `3.8x fewer`."""

    lower: str
    higher: str
    same_machine: bool = False  # compared only between runs of one machine and thread count


@dataclass(frozen=True)
class Difference:
    """A comparison by subtraction, told as `-0.012`."""


@dataclass(frozen=True)
class Column:
    """One measured quantity: `format` tells its value, `compare` its relation to the origin's."""

    name: str
    title: str
    format: Callable[[float], str]
    better: Better | None
    help: str
    compare: Factor | Difference | None = None
    where: Where = Where.SUMMARY | Where.CATEGORY


@dataclass(frozen=True)
class Key:
    """One field that tells settings apart. Unless `always`, it is shown only where runs differ in it."""

    name: str
    title: str
    help: str
    always: bool = False
    of_origin: bool = True  # False: an origin has no such thing, so its value does not count as a difference


FEWER, SMALLER = Factor("fewer", "more"), Factor("smaller", "larger")
FASTER, LESS = Factor("faster", "slower", same_machine=True), Factor("less", "more", same_machine=True)
POINTS = Difference()
IN_SUMMARY, IN_CATEGORY = Where.SUMMARY, Where.CATEGORY
COST, ALL = Where.SUMMARY | Where.BRIEF, Where.SUMMARY | Where.CATEGORY | Where.BRIEF

_RATIO = (
    "The share of channels removed; under scope stage maps keep all, and layers inside blocks the square of 1 - ratio. "
    "Origin is the unpruned network in float."
)
KEYS = (
    Key("arch", "arch", "The backbone.", always=True),
    Key("method", "method", "How the removed channels were chosen; none for the dense origin.", always=True),
    Key("ratio", "ratio", _RATIO, always=True),
    Key("scope", "scope", "How the cut is spread over the layers.", of_origin=False),
    Key("recover", "recover", "What was done after pruning to win accuracy back.", of_origin=False),
    Key("precision", "precision", "The number format of the weights and activations."),
    Key("dataset", "dataset", "The data the detector was fitted and tested on."),
)

# name, title, format, better, help, comparison with the origin, where it is shown
COLUMNS = (
    Column("params_full", "params (full)", count, "lower", "Parameters of the whole network.", FEWER, IN_SUMMARY),
    Column("params_used", "params used", count, "lower", "Parameters the detector runs.", FEWER, COST),
    Column("macs_full", "MACs (full)", count, "lower", "Multiply-accumulates of it all, one image.", FEWER, IN_SUMMARY),
    Column("macs_used", "MACs used", count, "lower", "Multiply-accumulates run.", FEWER, COST),
    Column("file_bytes", "file size", size, "lower", "Bytes of the backbone's file.", SMALLER, COST),
    Column("image_auroc", "image AUROC", metric, "higher", "Good or defective images; 0.5 is chance.", POINTS, ALL),
    Column("image_f1", "image F1", metric, "higher", "Best F1 over all thresholds on the image score."),
    Column("pixel_auroc", "pixel AUROC", metric, "higher", "Good or defective pixels; 0.5 is chance.", POINTS, ALL),
    Column("pixel_f1", "pixel F1", metric, "higher", "Best F1 over all thresholds on the pixel score."),
    Column("aupro", "AUPRO", metric, "higher", "Overlap per region, false alarms up to 0.3.", None, ALL),
    Column("ms_total", "ms total", milliseconds, "lower", "Median time for one image.", FASTER, ALL),
    Column("bank_size", "bank", count, None, "Patch vectors in the memory bank.", None, IN_CATEGORY),
    Column("peak_rss_bytes", "peak memory", size, "lower", "Largest resident memory.", LESS, IN_CATEGORY),
)

STAGES = (
    ("ms_features", "features"),
    ("ms_embedding", "embedding"),
    ("ms_search", "search"),
    ("ms_scoring", "scoring"),
)


def column(name: str) -> Column:
    return next(c for c in COLUMNS if c.name == name)
