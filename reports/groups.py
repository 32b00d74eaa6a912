"""The runs of one setting as a group: its means over seeds and categories, and its change against another group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, NamedTuple

from reports.columns import KEYS, Column, Factor
from reports.runs import NA, Run, number, text

Row = Mapping[str, Any]


def is_quantized(precision: str) -> bool:
    return precision.lower().startswith(("int", "uint"))


class Setting(NamedTuple):
    """What was done to a backbone, and the data it was measured on."""

    arch: str
    method: str
    ratio: float | None
    scope: str
    recover: str
    precision: str
    dataset: str

    @property
    def dense(self) -> bool:
        """Nothing was pruned; it may still have been quantized."""
        return self.ratio == 0

    @property
    def quantized(self) -> bool:
        return is_quantized(self.precision)

    @property
    def ratio_text(self) -> str:
        return NA if self.ratio is None else "origin" if self.dense and not self.quantized else f"{self.ratio:g}"

    def label(self, shown: Iterable[str], *, arch: bool = True, ratio: bool = True) -> str:
        """The setting in a few words, with the keys that are `shown` because the runs differ in them."""
        words = [self.method, *([self.ratio_text] if ratio else [])]
        if self.dense:
            words = ["dense" if self.quantized else "origin"]
        if arch:
            words.insert(0, self.arch)
        for key in KEYS:
            value = getattr(self, key.name)
            if not key.always and key.name in shown and key.name != "dataset" and value not in (NA, "none"):
                words.append(value)
        return " ".join(words)


@dataclass(frozen=True)
class Mean:
    """`spread` is the standard deviation between seeds, None with a single seed."""

    value: float
    categories: int
    spread: float | None


@dataclass(frozen=True)
class Change:
    """Origin and setting, each a mean over the `categories` that both were measured on."""

    before: float
    after: float
    categories: int

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def factor(self) -> float | None:
        """How many times less the setting needs than the origin."""
        return self.before / self.after if self.before > 0 and self.after > 0 else None


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one setting, over categories and seeds."""

    setting: Setting
    runs: tuple[Run, ...]

    @cached_property
    def rows(self) -> list[Row]:
        return [run.row for run in self.runs]

    @cached_property
    def categories(self) -> list[str]:
        return sorted({text(row, "category") for row in self.rows})

    @property
    def seeds(self) -> list[str]:
        return list(self._of_seeds)

    @cached_property
    def _of_seeds(self) -> dict[str, list[Row]]:
        """The rows of each seed, in the order of the seeds."""
        found = defaultdict(list)
        for row in self.rows:
            found[text(row, "seed")].append(row)
        return dict(sorted(found.items()))

    def per_category(self, name: str) -> dict[str, float]:
        """The mean over the rows of each category that has a value."""
        return _means(self.rows, name)

    def mean(self, name: str) -> Mean | None:
        values = self.per_category(name)
        if not values:
            return None
        return Mean(fmean(values.values()), len(values), spread(self.by_seed(name)))

    def by_seed(self, name: str) -> list[float]:
        """The mean of each seed over the categories that all of these seeds have.

        A sweep may have stopped half-way, and the mean over other categories differs by more than a seed does. Seeds
        that share no category with the one that has most of them are left out.
        """
        of_seeds = [_means(rows, name) for rows in self._of_seeds.values()]
        counted: list[dict[str, float]] = []
        shared: set[str] = set()
        for values in sorted(filter(None, of_seeds), key=len, reverse=True):
            if common := shared & values.keys() if counted else set(values):
                counted.append(values)
                shared = common
        return [fmean(values[category] for category in sorted(shared)) for values in counted]

    def part(self, category: str) -> Group:
        """The group on one category; itself where it has no other."""
        if self.categories == [category]:
            return self
        return Group(self.setting, tuple(run for run in self.runs if text(run.row, "category") == category))

    @property
    def machines(self) -> set[tuple[str, str]]:
        """Machine and thread count of each run."""
        return {(text(row, "machine"), text(row, "threads")) for row in self.rows}


def change_between(before: Group, after: Group, column: Column) -> Change | None:
    """Two settings over the categories that both were measured on; None where there is none.

    Times and memory of different machines are not compared.
    """
    if isinstance(column.compare, Factor) and column.compare.same_machine and before.machines != after.machines:
        return None
    one, other = before.per_category(column.name), after.per_category(column.name)
    common = sorted(one.keys() & other.keys())
    return Change(fmean(one[c] for c in common), fmean(other[c] for c in common), len(common)) if common else None


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation between seeds, None with a single seed."""
    return stdev(values) if len(values) > 1 else None


def setting_of(row: Row) -> Setting:
    names = {key.name: text(row, key.name) for key in KEYS if key.name != "ratio"}
    return Setting(ratio=number(row, "ratio"), **names)


def _means(rows: Iterable[Row], name: str) -> dict[str, float]:
    """Of each category that has a value."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if (value := number(row, name)) is not None:
            values[text(row, "category")].append(value)
    return {category: fmean(found) for category, found in values.items()}
