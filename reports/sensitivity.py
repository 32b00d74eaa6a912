"""The sensitivity of each group of channels: a picture and a table. Errors are on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports.columns import count
from reports.errors import ReportError
from reports.figure_style import AXIS, HAIRLINE, INK, PALETTE, QUIET, calm, new_figure, plain, png, svg
from reports.text_table import TextTable

_NAMED = 3  # of the most and of the least sensitive groups have a colour and a label
_FLOOR = 1e-3  # errors below it, zero among them, are drawn at it
_MAP = "YlOrBr"


@dataclass(frozen=True)
class GroupCut:
    """One group of channels cut alone at one ratio; savings are of the part that the detector runs.

    Attributes:
        error: of the feature maps against the uncut network's, relative to their variance.
        lost: share of the maps' variance in channels that went with the group; above 0 for groups that come out
            in the maps.
    """

    group: str
    channels: int
    ratio: float
    error: float
    lost: float
    params_saved: int
    macs_saved: int


def sensitivity_table(cuts: Sequence[GroupCut]) -> TextTable:
    """A row per group, the most sensitive first: its errors by ratio, and what the ratio in the middle saves.

    Raises:
        ReportError: there are no cuts.
    """
    groups, ratios = _grid(cuts)
    middle = ratios[len(ratios) // 2]
    ranked = sorted(groups.values(), key=lambda own: -_mean_error(own))
    rows = []
    for own in ranked:
        saved = own[middle]
        errors = [f"{own[ratio].error:.3f}" for ratio in ratios]
        costs = [count(saved.params_saved), count(saved.macs_saved)]
        rows.append([_name(saved), str(saved.channels), *errors, *costs])
    headers = ["group", "channels", *(f"error at {ratio:g}" for ratio in ratios)]
    headers += [f"params saved at {middle:g}", f"MACs saved at {middle:g}"]
    return TextTable(headers, rows, [False, *(True for _ in headers[1:])])


def sensitivity_figure(cuts: Sequence[GroupCut], *, title: str) -> dict[str, bytes]:
    """Left every group as a row of a heat map, from input to output; right the errors over the ratio as lines.

    Returns:
        `sensitivity.png` and `sensitivity.svg`.

    Raises:
        ReportError: there are no cuts.
    """
    groups, ratios = _grid(cuts)
    figure = new_figure(11.0, max(4.2, 1.6 + 0.27 * len(groups)))
    left, right = figure.subplots(1, 2, width_ratios=(0.55 + 0.62 * len(ratios), 5.0))
    _heat(left, groups, ratios)
    _curves(right, groups, ratios)
    figure.suptitle(plain(title, 90), x=0.012, ha="left", fontsize=11, color=INK, fontweight="bold", parse_math=False)
    return {"sensitivity.png": png(figure), "sensitivity.svg": svg(figure)}


_Groups = dict[str, dict[float, GroupCut]]


def _grid(cuts: Sequence[GroupCut]) -> tuple[_Groups, list[float]]:
    """The cuts by group and ratio, groups in their order, and the ratios that all groups have, ascending."""
    if not cuts:
        raise ReportError("0 cuts to show, 1 needed")
    groups: _Groups = {}
    for cut in cuts:
        groups.setdefault(cut.group, {})[cut.ratio] = cut
    ratios = sorted(set.intersection(*(set(own) for own in groups.values())))
    if not ratios:
        raise ReportError("the groups have no ratio in common: cut each at the same ratios")
    return groups, ratios


def _heat(axes: Axes, groups: _Groups, ratios: Sequence[float]) -> None:
    errors = np.array([[max(own[ratio].error, _FLOOR) for ratio in ratios] for own in groups.values()])
    norm = LogNorm(max(_FLOOR, errors.min() / 2), max(1.0, errors.max()))
    axes.imshow(errors, cmap=_MAP, norm=norm, aspect="auto")
    for row, own in enumerate(groups.values()):
        for place, ratio in enumerate(ratios):
            colour = "white" if norm(errors[row, place]) > 0.62 else INK
            axes.text(place, row, _digits(own[ratio].error), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axes.set_yticks(
        range(len(groups)), [plain(_name(next(iter(own.values()))), 44) for own in groups.values()], parse_math=False
    )
    axes.set_xticks(np.arange(0.5, len(ratios) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(groups) - 1), minor=True)
    axes.grid(which="minor", color="white", lw=1.2)
    axes.tick_params(which="both", length=0, colors=QUIET, labelsize=8.5)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("ratio: share of the group's channels removed", color=INK, fontsize=9.5)
    starred = " (* in a map)" if any(cut.lost > 0 for own in groups.values() for cut in own.values()) else ""
    axes.set_title(f"error, from input to output{starred}", loc="left", fontsize=9.5, color=INK)


def _curves(axes: Axes, groups: _Groups, ratios: Sequence[float]) -> None:
    calm(axes)
    ranked = sorted(groups, key=lambda name: -_mean_error(groups[name]))
    each = min(_NAMED, (len(ranked) + 1) // 2)
    named = dict.fromkeys([*ranked[:each], *ranked[max(each, len(ranked) - each) :]])
    for name in ranked:
        if name not in named:
            axes.plot(ratios, _errors(groups[name], ratios), color=AXIS, lw=1, alpha=0.6, zorder=2)
    ends = []
    for name, colour in zip(named, PALETTE, strict=False):
        ys = _errors(groups[name], ratios)
        axes.plot(ratios, ys, color=colour, lw=2, marker="o", ms=5, mec="white", mew=0.8, zorder=3)
        ends.append((ys[-1], plain(name, 30), colour))
    axes.set_yscale("log")
    low, high = _limits(groups, ratios)
    axes.set_ylim(low, high)
    decades = [d * 10.0**p for p in range(-4, 4) for d in (1, 3)]
    axes.yaxis.set_major_locator(FixedLocator([value for value in decades if low <= value <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    for place, (value, label, colour) in zip(_apart(ends, low, high), sorted(ends), strict=True):
        axes.annotate(
            label, (ratios[-1], value), xytext=(1.035, place), textcoords=axes.transAxes, va="center", fontsize=8.5,
            color=colour, annotation_clip=False, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": HAIRLINE, "lw": 1, "shrinkA": 2, "shrinkB": 4, "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axes.set_xlabel("ratio: share of the group's channels removed")
    others = ", the others grey" if len(ranked) > len(named) else ""
    axes.set_title(f"error: the most and the least sensitive{others}", loc="left", fontsize=9.5, color=INK)


def _apart(ends: Sequence[tuple[float, str, str]], low: float, high: float) -> list[float]:
    """Heights in [0, 1] for the labels of `ends` in ascending order: where their lines end, moved apart to be read."""
    gap = 0.065
    heights = [(np.log(max(value, low)) - np.log(low)) / (np.log(high) - np.log(low)) for value, _, _ in sorted(ends)]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + gap)
    over = max(0.0, heights[-1] - 0.98)
    if over:  # pushed down again, as far as it takes
        heights[-1] -= over
        for place in range(len(heights) - 2, -1, -1):
            heights[place] = min(heights[place], heights[place + 1] - gap)
    return [float(height) for height in heights]


def _limits(groups: _Groups, ratios: Sequence[float]) -> tuple[float, float]:
    values = [value for own in groups.values() for value in _errors(own, ratios)]
    return min(values) / 1.4, max(values) * 1.4


def _errors(own: dict[float, GroupCut], ratios: Sequence[float]) -> list[float]:
    return [max(own[ratio].error, _FLOOR) for ratio in ratios]


def _mean_error(own: dict[float, GroupCut]) -> float:
    return sum(cut.error for cut in own.values()) / len(own)


def _name(cut: GroupCut) -> str:
    """The group's name; an asterisk marks one whose channels come out in the maps."""
    return f"{cut.group} *" if cut.lost > 0 else cut.group


def _digits(error: float) -> str:
    return f"{error:.2f}" if error >= 0.095 else f"{error:.3f}" if error >= 0.0005 else "0"
