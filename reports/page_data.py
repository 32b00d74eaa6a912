"""The numbers that the page's script draws from, as plain JSON values. What it cannot draw stays a static figure."""

from __future__ import annotations

from typing import Any

from reports.columns import COLUMNS, STAGES, Column, column
from reports.curves import KINDS, CurveKind, category_curves, mean_curves
from reports.figure_style import PALETTE, Style, plain
from reports.figures import COSTS, METRICS
from reports.groups import Group
from reports.runs import sane
from reports.scores import Floats
from reports.series import Series, by_preference, is_in, panels, series_of, styles
from reports.summary import Summary
from reports.table import value_cell

_MOST_CURVES = 400  # on one page: beyond, the categories are left to their mean
_TOLD = ("image_auroc", "pixel_auroc", "aupro", "params_used", "macs_used", "file_bytes", "ms_total")
_UNITS = {"params_used": "count", "macs_used": "count", "file_bytes": "bytes", "ms_total": "ms"}


def page_data(summary: Summary) -> dict[str, Any]:
    """`series` are lines, `settings` the points on them; `start` is the place of the setting that a line starts from.
    Where treatments have `panels`, a setting tells in which of them it is; series that look alike have one `look`.

    What is not available is missing among the `values`, and None among the `stages`.
    """
    all_styles = styles(summary)
    order = list(all_styles)
    looks = list(dict.fromkeys(all_styles.values()))
    treatments = panels(summary)
    curves = _curves(summary)
    dense = {
        _network(group): place for place, group in reversed(list(enumerate(summary.groups))) if group.setting.dense
    }
    return {
        "datasets": list(dict.fromkeys(group.setting.dataset for group in summary.groups)),
        "metrics": [{"name": name, "title": column(name).title} for name in METRICS],
        "costs": [{"name": name, "title": axis, "unit": _UNITS[name]} for name, axis in COSTS],
        "stages": [stage for _, stage in STAGES],
        "kinds": [_kind(kind) for kind in KINDS],
        "panels": [plain(treatment.title(summary.shown), 60) for treatment in treatments],
        "preferred": [treatments.index(each) for each in by_preference(summary)],
        "series": [_series(series, style) | {"look": looks.index(style)} for series, style in all_styles.items()],
        "settings": [
            {
                "label": summary.label(group),
                "series": order.index(series_of(group)),
                "start": dense.get(_network(group)),
                "dataset": group.setting.dataset,
                "panels": [place for place, treatment in enumerate(treatments) if is_in(group, treatment)],
                "ratio": group.setting.ratio,
                "ratioText": group.setting.ratio_text,
                "dense": group.setting.dense,
                "values": {name: _rounded(mean.value) for name in _TOLD if (mean := group.mean(name))},
                "spreads": {
                    name: _rounded(mean.spread) for name in METRICS if (mean := group.mean(name)) and mean.spread
                },
                "told": [[each.title, value_cell(summary, group, each).line] for each in _told(group)],
                "interval": _interval(summary, group),
                "stages": [_rounded(mean.value) if (mean := group.mean(name)) else None for name, _ in STAGES],
                "curves": curves.get(group, {}),
            }
            for group in summary.groups
        ],
    }


def _network(group: Group) -> tuple[str, str, str]:
    """What the line of a method starts from: the dense network of this architecture, precision and dataset."""
    return group.setting.arch, group.setting.precision, group.setting.dataset


def _series(series: Series, style: Style) -> dict[str, Any]:
    dense = series.method == "none"
    tone = PALETTE.index(style.colour) if style.colour in PALETTE else None
    return {
        "label": plain(style.label, 60),
        "tone": None if dense else tone,
        "marker": style.marker,
        "dash": style.line,
    }


def _kind(kind: CurveKind) -> dict[str, Any]:
    titles = {"title": kind.title, "xTitle": kind.x_title, "yTitle": kind.y_title}
    return {"name": kind.name, **titles, "x": _list(kind.x), "chance": kind.chance}


def _told(group: Group) -> list[Column]:
    return [each for each in COLUMNS if each.name in _TOLD and group.mean(each.name)]


def _interval(summary: Summary, group: Group) -> list[float] | None:
    difference = summary.differences.get(group)
    return [round(difference.low, 4), round(difference.high, 4)] if difference else None


def _curves(summary: Summary) -> dict[Group, dict[str, dict[str, list[float]]]]:
    """By group and category, the mean over categories under the empty name."""
    per_group = {group: category_curves(group) for group in summary.groups}
    count = sum(len(parts) for parts in per_group.values())
    found = {}
    for group, parts in per_group.items():
        if parts:
            shown = {"": mean_curves(parts.values()), **(parts if len(parts) > 1 and count <= _MOST_CURVES else {})}
            found[group] = {
                category: {kind: _list(y) for kind, y in curves.items()} for category, curves in shown.items()
            }
    return found


def _rounded(value: float) -> float | None:
    return sane(float(f"{value:.6g}"))


def _list(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in values]
