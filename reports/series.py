"""Which settings make one line of a figure, how that line looks, and which lines share a panel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

from reports.figure_style import LINES, MARKERS, PALETTE, QUIET, Style
from reports.groups import Group, is_quantized
from reports.runs import NA
from reports.summary import Summary


class Treatment(NamedTuple):
    """What was done after the cut."""

    recover: str
    precision: str

    @property
    def quantized(self) -> bool:
        return is_quantized(self.precision)

    def title(self, shown: Collection[str]) -> str:
        """Its words, of the keys that are `shown` because the runs differ in them."""
        words = {"recover": "no recovery" if self.recover == "none" else self.recover, "precision": self.precision}
        return ", ".join(word for key, word in words.items() if key in shown)


class Series(NamedTuple):
    """The settings that differ in nothing but ratio and dataset: one line of a figure."""

    arch: str
    method: str
    scope: str
    treatment: Treatment

    @property
    def cut(self) -> tuple[str, str, str]:
        return self.arch, self.method, self.scope


def series_of(group: Group) -> Series:
    setting = group.setting
    method = "none" if setting.dense else setting.method
    recover = "none" if setting.recover == NA else setting.recover  # rows of earlier versions have no such field
    return Series(setting.arch, method, setting.scope, Treatment(recover, setting.precision))


def panels(summary: Summary) -> tuple[Treatment, ...]:
    """The treatments that get a panel each; none where all lines can share one.

    More lines than colours, of several cuts and treatments, are a tangle: one panel for each treatment then has a line
    for each cut.
    """
    pruned = dict.fromkeys(series_of(group) for group in summary.groups if not group.setting.dense)
    treatments = Counter(series.treatment for series in pruned)
    if len(pruned) <= len(PALETTE) or len(treatments) == 1 or max(treatments.values()) == 1:
        return ()
    return tuple(sorted(treatments, key=lambda each: (each.recover != "none", each.recover, each.quantized)))


def is_in(group: Group, panel: Treatment | None) -> bool:
    """Whether `group` is drawn in the panel; None has all. Dense networks are in each, for comparison."""
    return panel is None or group.setting.dense or series_of(group).treatment == panel


def by_preference(summary: Summary) -> list[Treatment]:
    """The panels in the order in which to show one where there is room for one: recovered before not, then in float."""
    return sorted(panels(summary), key=lambda each: (each.recover == "none", each.quantized))


def labels_in_panels(summary: Summary) -> Callable[..., str]:
    """What writes a group's setting, with `ratio=False` without its ratio, in the words that tell it from the others of
    its panel: the treatment stands above that."""
    arch = len({group.setting.arch for group in summary.groups}) > 1
    told = summary.shown - {"recover", "precision"} if panels(summary) else summary.shown

    def label(group: Group, *, ratio: bool = True) -> str:
        return group.setting.label(summary.shown if group.setting.dense else told, arch=arch, ratio=ratio)

    return label


def styles(summary: Summary) -> dict[Series, Style]:
    """How each series looks, the same in every figure, by arch: origins grey, the rest in the palette's order.

    Where treatments have panels, a cut looks the same in each.
    """
    split, label = bool(panels(summary)), labels_in_panels(summary)
    found: dict[Series, Style] = {}
    turns: dict[object, int] = {}
    dense = 0
    for group in sorted(summary.groups, key=lambda group: group.setting.arch):
        series = series_of(group)
        if series in found:
            continue
        if group.setting.dense:
            found[series] = Style(label(group), QUIET, MARKERS[dense % len(MARKERS)], ":")
            dense += 1
            continue
        turn = turns.setdefault(series.cut if split else series, len(turns))
        found[series] = Style(
            label(group, ratio=False),
            PALETTE[turn % len(PALETTE)],
            MARKERS[turn % len(MARKERS)],
            LINES[turn // len(PALETTE) % len(LINES)],
        )
    return found
