"""The four curves of a dataset side by side: the origin, and each method at one ratio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.curves import KINDS, CurveKind, category_curves, has_curves, mean_curves
from reports.figure_style import AXIS, INK, Style, calm, legend, new_figure
from reports.groups import Group
from reports.scores import Floats
from reports.series import Treatment, by_preference, is_in, labels_in_panels, series_of, styles
from reports.summary import Summary

SHOWN_RATIO = 0.5  # of each series the setting nearest to it


def curve_figures(summary: Summary) -> Iterator[tuple[str, Treatment | None, Figure]]:
    """(dataset, panel, figure) of each dataset with scores: curves are means over categories, of one treatment if all
    would be a tangle."""
    all_styles, label, preferred = styles(summary), labels_in_panels(summary), by_preference(summary)
    for dataset in dict.fromkeys(group.setting.dataset for group in summary.groups):
        here = [group for group in summary.groups if group.setting.dataset == dataset]
        drawable = [group for group in here if has_curves(group)]
        panel = next((each for each in preferred if _has_pruned(drawable, each)), None)
        shown = near_ratio([group for group in drawable if is_in(group, panel)])
        curves = {group: mean_curves(category_curves(group).values()) for group in shown}
        kinds = [kind for kind in KINDS if any(kind.name in found for found in curves.values())]
        if not kinds:
            continue
        down = (len(kinds) + 1) // 2
        figure = new_figure(11.0, 0.6 + 4.6 * down)
        looks = {group: all_styles[series_of(group)]._replace(label=label(group)) for group in shown}
        for place, kind in enumerate(kinds, start=1):
            axes = figure.add_subplot(down, 2, place)
            _axes(axes, kind)
            for group, style in looks.items():
                if kind.name in curves[group]:
                    _line(axes, kind, curves[group][kind.name], style, group)
        legend(figure, [style._replace(marker="") for style in looks.values()])
        yield dataset, panel, figure


def _has_pruned(groups: Iterable[Group], panel: Treatment) -> bool:
    return any(not group.setting.dense and is_in(group, panel) for group in groups)


def near_ratio(groups: list[Group], ratio: float = SHOWN_RATIO) -> list[Group]:
    """Of each series the setting whose ratio is nearest; those without a ratio are left out."""
    found: dict[object, Group] = {}
    for group in groups:
        series, own = series_of(group), group.setting.ratio
        if own is not None and (
            series not in found or abs(own - ratio) < abs((found[series].setting.ratio or 0.0) - ratio)
        ):
            found[series] = group
    return list(found.values())


def _axes(axes: Axes, kind: CurveKind) -> None:
    calm(axes)
    axes.set_title(kind.title, loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.set_xlabel(kind.x_title)
    axes.set_ylabel(kind.y_title)
    axes.set_xlim(0, float(kind.x[-1]))
    axes.set_ylim(0, 1.02)
    axes.tick_params(pad=7)  # the two zeros meet in the corner
    if kind.chance:
        axes.plot([0, 1], [0, 1], color=AXIS, lw=1, ls=(0, (2, 3)), zorder=1)


def _line(axes: Axes, kind: CurveKind, y: Floats, style: Style, group: Group) -> None:
    dense = group.setting.dense
    axes.plot(kind.x, y, color=style.colour, lw=2.2 if dense else 1.7, ls=style.line, zorder=4 if dense else 3)
