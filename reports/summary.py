"""All settings of a report, each compared with its origin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reports.columns import KEYS, Column, column
from reports.errors import ReportError
from reports.groups import Change, Group, Setting, change_between, setting_of
from reports.noise import Deviation, image_difference, pooled_deviation, seed_noise
from reports.runs import NA, Run
from reports.significance import AurocDifference

_SCORED = "image_auroc"  # the metric that the scores of images tell of


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
    differences: Mapping[Group, AurocDifference]
    _deviations: dict[tuple[object, ...], Deviation | None] = field(default_factory=dict, repr=False)

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
        return change_between(origin, group, column)

    def tie(self, group: Group, name: str) -> bool:
        """Whether `group` differs from its origin in the metric `name` by no more than chance, as far as is known."""
        origin = self.origin_of(group)
        return origin is not None and self.same(origin, group, name, self.differences.get(group))

    def same(self, first: Group, second: Group, name: str, difference: AurocDifference | None = None) -> bool:
        """Whether two settings differ in the metric `name` by no more than chance, as far as it is known.

        They do not where zero lies within the 95 % interval of the image AUROC's `difference` (bootstrapped unless
        given), nor where they differ by less than seeds do.
        """
        if name == _SCORED:
            difference = difference or image_difference(first, second)
            if difference and difference.tie:
                return True
        change, deviation = change_between(first, second, column(name)), self._deviation(first, second, name)
        noise = seed_noise(first, second, name, deviation) if deviation else None
        return change is not None and noise is not None and abs(change.difference) <= noise

    def _deviation(self, first: Group, second: Group, name: str) -> Deviation | None:
        """Between the seeds of all whose noise says something about the two: the same networks on the same data."""
        networks = sorted({_network(first), _network(second)})
        whole = second in self.groups
        key = (*networks, *(() if whole else second.categories), name)
        if key not in self._deviations:
            near = self.groups if whole else [part for part in self.parts if part.categories == second.categories]
            self._deviations[key] = pooled_deviation([each for each in near if _network(each) in networks], name)
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
    parts = tuple(group.part(category) for group in groups for category in group.categories)
    origins = _origins(groups)
    return Summary(groups, origins, _shown(groups), parts, _differences((*groups, *parts), origins))


def _network(group: Group) -> tuple[str, str]:
    return group.setting.arch, group.setting.dataset


def _differences(groups: Iterable[Group], origins: Mapping[tuple[str, str], Group]) -> dict[Group, AurocDifference]:
    found = {}
    for group in dict.fromkeys(groups):
        origin = origins.get((group.setting.arch, group.setting.dataset))
        if origin and origin.setting != group.setting and (difference := image_difference(origin, group)):
            found[group] = difference
    return found


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
