"""Which settings make one line of a figure, how that line looks, and which lines share a panel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from reports.figure_style import LINES, MARKERS, PALETTE, QUIET, Style
from reports.groups import Group
from reports.runs import NA
from reports.summary import Summary


class Treatment(NamedTuple):
    """What was done after the cut."""

    recover: str
    precision: str

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
    floats = _in_float(summary)
    return tuple(sorted(treatments, key=lambda each: (each.recover != "none", each.recover, each not in floats)))


def is_in(group: Group, panel: Treatment | None) -> bool:
    """Whether `group` is drawn in the panel; None has all. Dense networks are in each, for comparison."""
    return panel is None or group.setting.dense or series_of(group).treatment == panel


def by_preference(summary: Summary) -> list[Treatment]:
    """The panels in the order in which to show one where there is room for one: recovered before not, then in float."""
    floats = _in_float(summary)
    return sorted(panels(summary), key=lambda each: (each.recover == "none", each not in floats))


def label_in_panel(summary: Summary, group: Group, *, ratio: bool = True) -> str:
    """The setting in the words that tell it from the others of its panel; the treatment is told by the panel."""
    told = bool(panels(summary)) and not group.setting.dense
    shown = summary.shown - {"recover", "precision"} if told else summary.shown
    return group.setting.label(shown, arch=len({each.setting.arch for each in summary.groups}) > 1, ratio=ratio)


def styles(summary: Summary) -> dict[Series, Style]:
    """How each series looks, the same in every figure, by arch: origins grey, the rest in the palette's order.

    Where treatments have panels, a cut looks the same in each.
    """
    split = bool(panels(summary))
    found: dict[Series, Style] = {}
    turns: dict[object, int] = {}
    dense = 0
    for group in sorted(summary.groups, key=lambda group: group.setting.arch):
        series = series_of(group)
        if series in found:
            continue
        if group.setting.dense:
            found[series] = Style(label_in_panel(summary, group), QUIET, MARKERS[dense % len(MARKERS)], ":")
            dense += 1
            continue
        turn = turns.setdefault(series.cut if split else series, len(turns))
        found[series] = Style(
            label_in_panel(summary, group, ratio=False),
            PALETTE[turn % len(PALETTE)],
            MARKERS[turn % len(MARKERS)],
            LINES[turn // len(PALETTE) % len(LINES)],
        )
    return found


def _in_float(summary: Summary) -> set[Treatment]:
    return {series_of(group).treatment for group in summary.groups if not group.setting.quantized}
