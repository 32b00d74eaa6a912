"""How every figure looks: colours, quiet axes, a legend that fits, PNG at a fixed resolution."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from reports.columns import tick
from reports.runs import one_line

DPI = 144
# Okabe and Ito (2008), told apart with every common colour blindness; the yellow is left out: too faint on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.")
INK, QUIET, AXIS, HAIRLINE = "#1d2730", "#5b6873", "#9aa5ae", "#e3e7ea"
_LETTER, _HANDLE = 0.075, 0.62  # inches of a legend: a letter at 9 points, and what stands beside a label


class Style(NamedTuple):
    """Of a line and its points."""

    label: str
    colour: str
    marker: str
    line: str


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own: no pyplot, so no global state and no window."""
    spaced = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06)
    return Figure(figsize=(width, height), dpi=DPI, layout=spaced, facecolor="white")


def png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()


def svg(figure: Figure, *, outlines: bool = True) -> bytes:
    """The figure as SVG, the same bytes each time; letters as `outlines` look alike anywhere, as text are small."""
    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "prunecore", "svg.fonttype": "path" if outlines else "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def settled(figure: Figure) -> Figure:
    """The figure with its layout computed once, and not again for each format."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def plain(text: str, limit: int = 40) -> str:
    """A name fit for a figure: one line, not too long, not hidden from a legend by a leading underscore.

    >>> plain("_a"), plain("x" * 50, 8)
    (' _a', 'xxxxxxx…')
    """
    line = one_line(text)
    short = line if len(line) <= limit else line[: limit - 1] + "…"
    return f" {short}" if short.startswith("_") else short


def calm(axes: Axes) -> None:
    """Light grid, no box, quiet tick labels."""
    axes.set_axisbelow(True)
    axes.grid(color=HAIRLINE, lw=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(AXIS)
    axes.tick_params(colors=QUIET, labelsize=9, length=0)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(9.5)


def legend(figure: Figure, shown: Iterable[Style]) -> None:
    """One legend for all panels, above them; names are taken literally, never as mathematics."""
    entries = list(dict.fromkeys(shown))
    labels = [plain(style.label) for style in entries]
    widest = _HANDLE + _LETTER * max(map(len, labels), default=0)
    handles = [
        Line2D([], [], color=s.colour, marker=s.marker, ls=s.line, lw=2, ms=6.5, mec="white", mew=0.8) for s in entries
    ]
    drawn = figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=max(1, min(len(entries), int(figure.get_figwidth() / widest))),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    for label in drawn.get_texts():
        label.set_parse_math(False)


def cost_axis(axes: Axes, values: Sequence[float], unit: Callable[[float], str]) -> None:
    """The x axis of a cost in its unit; logarithmic where the values span more than a factor of four."""
    low, high = min(values), max(values)
    ticks = FuncFormatter(lambda value, _: tick(value, unit) if value >= 0 else "")
    if high <= 4 * low:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(ticks)
        axes.margins(x=0.12)
        return
    axes.set_xscale("log")
    axes.set_xlim(low / 1.5, high * 1.5)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high < 50 * low else (1, 3) if high < 1e4 * low else (1,)
    axes.xaxis.set_major_locator(FixedLocator([step * 10.0**decade for decade in decades for step in steps]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ticks)
