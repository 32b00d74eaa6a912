"""From rows to means: over the seeds of a category first, then over the categories, and compared with the origin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

from reports.columns import KEYS, Column, Factor
from reports.errors import ReportError
from reports.noise import Deviation, image_difference, pooled_deviation, seed_noise, spread
from reports.runs import NA, Run, number, text
from reports.significance import Difference

Row = Mapping[str, Any]
_SCORED = "image_auroc"  # the metric that the scores of images tell of


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
        return self.precision.lower().startswith(("int", "uint"))

    @property
    def ratio_text(self) -> str:
        return NA if self.ratio is None else "origin" if self.dense and not self.quantized else f"{self.ratio:g}"

    def label(self, shown: Iterable[str], *, ratio: bool = True) -> str:
        """The setting in a few words, with the keys that are `shown` because the runs differ in them."""
        words = [self.arch, self.method, *([self.ratio_text] if ratio else [])]
        if self.dense:
            words = [self.arch, "dense" if self.quantized else "origin"]
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

    @property
    def rows(self) -> list[Row]:
        return [run.row for run in self.runs]

    @property
    def categories(self) -> list[str]:
        return sorted({text(row, "category") for row in self.rows})

    @property
    def seeds(self) -> list[str]:
        return sorted({text(row, "seed") for row in self.rows})

    def per_category(self, name: str) -> dict[str, float]:
        """The mean over the rows of each category that has a value."""
        return _means(self.rows, name, "category")

    def mean(self, name: str) -> Mean | None:
        values = self.per_category(name)
        if not values:
            return None
        return Mean(fmean(values.values()), len(values), spread(self.by_seed(name)))

    def by_seed(self, name: str) -> list[float]:
        """The mean over categories of each seed that has a value."""
        return [
            fmean(_means([row for row in self.rows if text(row, "seed") == seed], name, "category").values())
            for seed in _means(self.rows, name, "seed")
        ]


@dataclass(frozen=True, eq=False)
class Summary:
    """All settings in reading order, and which of them is the origin of an (arch, dataset).

    `parts` are the settings once per category; `differences` the image AUROC of groups and parts against their
    origins', where the scores of the images are at hand.
    """

    groups: tuple[Group, ...]
    origins: Mapping[tuple[str, str], Group]
    shown: frozenset[str]
    parts: tuple[Group, ...]
    differences: Mapping[Group, Difference]
    _deviations: dict[tuple[str, ...], Deviation | None] = field(default_factory=dict, repr=False)

    def origin_of(self, group: Group) -> Group | None:
        """The uncompressed network of the same arch and dataset; None where it was not run."""
        return self.origins.get((group.setting.arch, group.setting.dataset))

    def is_origin(self, group: Group) -> bool:
        origin = self.origin_of(group)
        return origin is not None and origin.setting == group.setting

    def change(self, group: Group, column: Column) -> Change | None:
        """`group` against its origin, over the categories that both have; None where that says nothing."""
        origin = self.origin_of(group)
        if origin is None or self.is_origin(group):
            return None
        if isinstance(column.compare, Factor) and column.compare.same_machine and _machines(group) != _machines(origin):
            return None
        before, after = origin.per_category(column.name), group.per_category(column.name)
        common = sorted(before.keys() & after.keys())
        if not common:
            return None
        return Change(fmean(before[c] for c in common), fmean(after[c] for c in common), len(common))

    def tie(self, group: Group, name: str) -> bool:
        """Whether `group` differs from its origin in the metric `name` by no more than chance, as far as is known."""
        origin = self.origin_of(group)
        return origin is not None and self.same(origin, group, name, self.differences.get(group))

    def same(self, first: Group, second: Group, name: str, difference: Difference | None = None) -> bool:
        """Whether two settings differ in the metric `name` by no more than chance, as far as it is known.

        They do not where zero lies within the 95 % interval of the image AUROC's `difference` (bootstrapped unless
        given), nor where they differ by less than seeds do.
        """
        if name == _SCORED:
            difference = difference or image_difference(first, second)
            if difference and difference.tie:
                return True
        before, after = first.per_category(name), second.per_category(name)
        common = before.keys() & after.keys()
        deviation = self._deviation(second, name)
        noise = seed_noise(first, second, name, deviation) if deviation else None
        return bool(common) and noise is not None and abs(fmean(after[c] - before[c] for c in common)) <= noise

    def _deviation(self, group: Group, name: str) -> Deviation | None:
        """Between the seeds of all whose noise says something about the group's: the same network on the same data."""
        network = group.setting.arch, group.setting.dataset
        key = (*network, *(group.categories if group not in self.groups else ()), name)
        if key not in self._deviations:
            near = self.groups if group in self.groups else [p for p in self.parts if p.categories == group.categories]
            peers = [peer for peer in near if (peer.setting.arch, peer.setting.dataset) == network]
            self._deviations[key] = pooled_deviation(peers, name)
        return self._deviations[key]

    def label(self, group: Group) -> str:
        return group.setting.label(self.shown)


def summarize(runs: Sequence[Run]) -> Summary:
    """Groups the runs by setting.

    Raises:
        ReportError: there are no runs.
    """
    if not runs:
        raise ReportError("0 runs to report, 1 needed: run `compress sweep -o FOLDER` first")
    found: dict[Setting, list[Run]] = defaultdict(list)
    for run in runs:
        found[setting_of(run.row)].append(run)
    groups = tuple(Group(setting, tuple(found[setting])) for setting in sorted(found, key=_reading_order))
    parts = tuple(part for group in groups for part in _by_category(group))
    origins = _origins(groups)
    return Summary(groups, origins, _shown(groups), parts, _differences((*groups, *parts), origins))


def _by_category(group: Group) -> list[Group]:
    """The group once per category; itself where it has one."""
    if len(group.categories) == 1:
        return [group]
    return [
        Group(group.setting, tuple(run for run in group.runs if text(run.row, "category") == category))
        for category in group.categories
    ]


def _differences(groups: Iterable[Group], origins: Mapping[tuple[str, str], Group]) -> dict[Group, Difference]:
    found = {}
    for group in dict.fromkeys(groups):
        origin = origins.get((group.setting.arch, group.setting.dataset))
        if origin and origin.setting != group.setting and (difference := image_difference(origin, group)):
            found[group] = difference
    return found


def setting_of(row: Row) -> Setting:
    names = {key.name: text(row, key.name) for key in KEYS if key.name != "ratio"}
    return Setting(ratio=number(row, "ratio"), **names)


def _means(rows: Iterable[Row], name: str, by: str) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if (value := number(row, name)) is not None:
            values[text(row, by)].append(value)
    return {key: fmean(found) for key, found in values.items()}


def _machines(group: Group) -> set[tuple[str, str]]:
    return {(text(row, "machine"), text(row, "threads")) for row in group.rows}


def _reading_order(setting: Setting) -> tuple[object, ...]:
    ratio = float("inf") if setting.ratio is None else setting.ratio
    rest = (setting.scope, setting.recover != "none", setting.recover, setting.quantized)
    return (setting.dataset, setting.arch, not setting.dense, setting.method, ratio, *rest, setting.precision)


def _origins(groups: Iterable[Group]) -> dict[tuple[str, str], Group]:
    """Per (arch, dataset) the dense group; a quantized one is itself a compression and no origin."""

    def touched(group: Group) -> tuple[bool, bool]:
        return group.setting.recover not in ("none", NA), "32" not in group.setting.precision

    found: dict[tuple[str, str], Group] = {}
    for group in sorted(groups, key=touched):
        if group.setting.dense and not group.setting.quantized:
            found.setdefault((group.setting.arch, group.setting.dataset), group)
    return found


def _shown(groups: Sequence[Group]) -> frozenset[str]:
    """The keys that a reader needs to tell the settings apart."""
    pruned = [g for g in groups if not g.setting.dense]
    shown = set()
    for key in KEYS:
        values = {getattr(g.setting, key.name) for g in (groups if key.of_origin else pruned)}
        if key.always or len(values) > 1:
            shown.add(key.name)
    return frozenset(shown)
