"""The figures of a report: AUROC against ratio and against cost, one panel per dataset, and the stage times."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reports.columns import STAGES, column, milliseconds
from reports.curve_figure import curve_figures
from reports.figure_style import (
    AXIS,
    HAIRLINE,
    INK,
    PALETTE,
    QUIET,
    Style,
    calm,
    cost_axis,
    legend,
    new_figure,
    plain,
    png,
    settled,
    svg,
)
from reports.groups import Group
from reports.series import Series, is_in, panels, series_of, styles
from reports.summary import Summary

# Draws some values into axes that are scaled to fit all of the groups.
Draw = Callable[[Axes, Mapping[Group, float], Sequence[Group], Mapping[Series, Style]], None]
COSTS = (
    ("macs_used", "multiply-accumulates the detector runs, one image"),
    ("params_used", "parameters the detector runs"),
    ("ms_total", "time for one image, median"),
    ("file_bytes", "size of the backbone's file"),
)
METRICS = ("image_auroc", "pixel_auroc", "aupro")
_TAGGED = 4  # lines of a panel that can each have the ratio at every point


@dataclass(frozen=True, eq=False)
class Picture:
    """One figure: its name, title, and words for those who cannot see it; `wide` ones need the full width.

    `kind` and `of` say what is drawn, for those who draw it anew: a metric against the `ratio`, the image AUROC against
    a cost (`tradeoff`), the `stages`, or the `curves` of a dataset.
    """

    name: str
    kind: str
    of: str
    title: str
    description: str
    figure: Figure
    wide: bool = False

    def png(self) -> bytes:
        return png(self.figure)

    def svg(self, *, outlines: bool = True) -> bytes:
        return svg(self.figure, outlines=outlines)


def figures(summary: Summary) -> list[Picture]:
    """Every figure that the runs have numbers for."""
    drawn = [_trade_off(summary, name, axis) for name, axis in COSTS]
    drawn += [_against_ratio(summary, name) for name in METRICS]
    return [picture for picture in (*drawn, _stage_times(summary), *_curves(summary)) if picture]


def _against_ratio(summary: Summary, name: str) -> Picture | None:
    title = column(name).title
    values = {group: value for group, value in _means(summary, name).items() if group.setting.ratio is not None}
    if not values:
        return None
    spreads = {group: mean.spread for group in values if (mean := group.mean(name)) and mean.spread}

    def draw(axes: Axes, here: Mapping[Group, float], scaled: Sequence[Group], shown: Mapping[Series, Style]) -> None:
        for series, line in _lines(here).items():
            style = shown[series]
            xs, ys = [group.setting.ratio or 0.0 for group in line], [here[group] for group in line]
            if line[-1].setting.dense:
                axes.axhline(ys[0], color=style.colour, lw=1.2, ls=style.line, zorder=1)
            axes.plot(
                xs, ys, color=style.colour, ls=style.line, marker=style.marker,
                lw=2, ms=6.5, mec="white", mew=0.8, zorder=4 if line[-1].setting.dense else 3,
            )  # fmt: skip
            if own := [group for group in line if group in spreads and series_of(group) == series]:
                axes.errorbar(
                    [group.setting.ratio or 0.0 for group in own], [here[group] for group in own],
                    yerr=[spreads[group] for group in own], fmt="none", ecolor=style.colour, elinewidth=1.2, zorder=2,
                )  # fmt: skip
        axes.set_xlabel("pruning ratio")
        axes.set_xlim(-0.03, max(0.1, *(group.setting.ratio or 0.0 for group in scaled)) + 0.03)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    return Picture(
        name=name,
        kind="ratio",
        of=name,
        title=f"{_sentence(title)} against ratio",
        description=f"{_sentence(title)} of every method at each pruning ratio; the dotted line is the origin"
        f"{', bars are the deviation between seeds' if spreads else ''}.",
        figure=_panels(summary, values, draw, title),
        wide=_several(summary, values),
    )


def _trade_off(summary: Summary, name: str, axis: str) -> Picture | None:
    auroc, cost = column("image_auroc"), column(name)
    costs = {group: value for group, value in _means(summary, name).items() if value > 0}
    values = {group: value for group, value in _means(summary, auroc.name).items() if group in costs}
    if not values:
        return None

    def draw(axes: Axes, here: Mapping[Group, float], scaled: Sequence[Group], shown: Mapping[Series, Style]) -> None:
        for series, line in _lines(here).items():
            style = shown[series]
            axes.plot(
                [costs[g] for g in line], [here[g] for g in line], color=style.colour, lw=1.2, alpha=0.4, zorder=2
            )
            own = [group for group in line if series_of(group) == series]
            axes.plot(
                [costs[g] for g in own], [here[g] for g in own], style.marker,
                color=style.colour, ms=8.5, mec="white", mew=1, zorder=3,
            )  # fmt: skip
        many = len({series_of(group) for group in here}) > _TAGGED
        for group in _highest(here) if many else here:
            offset, align = ((0, 8), "center") if many else ((7, -3), "left")
            axes.annotate(
                group.setting.ratio_text, (costs[group], here[group]), offset, textcoords="offset points", ha=align,
                fontsize=8, color=QUIET, zorder=2.5, path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )  # fmt: skip
        front = pareto([(costs[group], here[group]) for group in here])
        axes.step(
            [x for x, _ in front], [y for _, y in front], where="post", color=AXIS, lw=1, ls=(0, (4, 3)), zorder=1
        )
        cost_axis(axes, [costs[group] for group in scaled], cost.format)
        axes.set_xlabel(axis)

    title = f"{_sentence(auroc.title)} against {cost.title}"
    description = (
        f"{title}: up is more accurate, left is cheaper; numbers are ratios; the grey steps are the Pareto front."
    )
    drawn = _panels(summary, values, draw, auroc.title)
    return Picture(f"tradeoff_{name}", "tradeoff", name, title, description, drawn, wide=_several(summary, values))


def _highest(here: Mapping[Group, float]) -> list[Group]:
    """Of each ratio the highest: the one that has room for a tag where many lie on one another."""
    pruned = [group for group in here if not group.setting.dense]
    return list({group.setting.ratio_text: group for group in sorted(pruned, key=lambda group: here[group])}.values())


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, value) points that no other beats in both, by cost.

    >>> pareto([(2, 0.9), (1, 0.8), (3, 0.85), (2, 0.7)])
    [(1, 0.8), (2, 0.9)]
    """
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def _panels(summary: Summary, values: Mapping[Group, float], draw: Draw, ylabel: str) -> Figure:
    """A panel per dataset, or per dataset and treatment, those of a dataset on one scale; a single legend above."""
    all_styles = styles(summary)
    datasets, treatments = _datasets(values), panels(summary)
    across = min(len(treatments), 3) or min(len(datasets), 2)
    places = across * math.ceil(len(treatments) / across) or 1  # of a dataset: its treatments begin a row
    down = math.ceil(len(datasets) * places / across)
    figure = new_figure((7.6, 11.0, 13.0)[across - 1], 0.5 + 3.8 * down)
    for turn, dataset in enumerate(datasets):
        own = [group for group in values if group.setting.dataset == dataset]
        first: Axes | None = None
        for place, treatment in enumerate(treatments or (None,), start=turn * places + 1):
            first = axes = figure.add_subplot(down, across, place, sharex=first, sharey=first)
            calm(axes)
            axes.margins(y=0.14)
            draw(axes, {group: values[group] for group in own if is_in(group, treatment)}, own, all_styles)
            axes.set_ylabel(ylabel)
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
            title = f"{dataset}: {treatment.title(summary.shown)}" if treatment else dataset
            axes.set_title(plain(title), loc="left", fontsize=10, color=INK, fontweight="bold", parse_math=False)
    seen = {series_of(group) for group in values}
    legend(figure, (style for series, style in all_styles.items() if series in seen))
    return settled(figure)


def _several(summary: Summary, groups: Iterable[Group]) -> bool:
    return len(_datasets(groups)) * max(len(panels(summary)), 1) > 1


def _datasets(groups: Iterable[Group]) -> list[str]:
    return list(dict.fromkeys(group.setting.dataset for group in groups))


def _lines(here: Mapping[Group, float]) -> dict[Series, list[Group]]:
    """Per series its settings by ratio, led by the dense network of the same arch and precision where there is one."""
    members: dict[Series, list[Group]] = {}
    for group in here:
        members.setdefault(series_of(group), []).append(group)
    dense = {(g.setting.arch, g.setting.precision): g for g in reversed(list(here)) if g.setting.dense}
    lines = {}
    for series, own in members.items():
        start = dense.get((series.arch, series.treatment.precision))
        led = [start, *own] if start and not own[0].setting.dense and own[0].setting.ratio is not None else own
        lines[series] = sorted(led, key=lambda group: group.setting.ratio or 0.0)
    return lines


def _stage_times(summary: Summary) -> Picture | None:
    parts = [(stage, _means(summary, name), colour) for (name, stage), colour in zip(STAGES, PALETTE, strict=False)]
    timed = [group for group in summary.groups if any(group in means for _, means, _ in parts)]
    if not timed:
        return None
    totals = _means(summary, "ms_total")
    figure = new_figure(7.6, 1.4 + 0.36 * len(timed))
    axes = figure.add_subplot()
    calm(axes)
    axes.grid(visible=False, axis="y")
    places, ends = range(len(timed)), [0.0] * len(timed)
    for stage, means, colour in parts:
        if widths := [means.get(group, 0.0) for group in timed] if means else []:
            axes.barh(places, widths, left=ends, height=0.62, color=colour, label=stage)
            ends = [end + width for end, width in zip(ends, widths, strict=True)]
    rest = [max(0.0, totals.get(group, end) - end) for group, end in zip(timed, ends, strict=True)]
    if any(rest):  # decoding, and what lies between the stages
        axes.barh(places, rest, left=ends, height=0.62, color=HAIRLINE, label="rest")
    for place, group in enumerate(timed):
        end = ends[place] + rest[place]
        axes.annotate(
            milliseconds(totals.get(group, end)), (end, place), (5, 0), textcoords="offset points",
            va="center", fontsize=8, color=QUIET,
        )  # fmt: skip
    several = "dataset" in summary.shown
    labels = [summary.label(group) + (f", {group.setting.dataset}" if several else "") for group in timed]
    axes.set_yticks(places, [plain(label, 48) for label in labels], parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("time for one image (ms, median)")
    figure.legend(loc="outside upper left", ncols=5, frameon=False, fontsize=9, labelcolor=INK)
    told = "The time of each stage, stacked, per setting."
    return Picture("stage_times", "stages", "", "Time per stage", told, settled(figure))


def _curves(summary: Summary) -> list[Picture]:
    found = []
    for place, (dataset, panel, figure) in enumerate(curve_figures(summary)):
        title = f"ROC, precision-recall and PRO curves on {dataset}"
        title += f": {panel.title(summary.shown)}" if panel else ""
        told = f"{title}, means over categories: the origin and each method at the ratio nearest to 0.5."
        name = "curves" if place == 0 else f"curves_{place + 1}"  # a dataset's name is no file name
        found.append(Picture(name, "curves", dataset, title, told, settled(figure), wide=True))
    return found


def _means(summary: Summary, name: str) -> dict[Group, float]:
    return {group: mean.value for group in summary.groups if (mean := group.mean(name))}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
