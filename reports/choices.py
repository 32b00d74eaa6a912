"""A few ways to do one thing, measured side by side: a table, Markdown, CSV, and detection against a cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from reports.columns import Column, column, metric, milliseconds, size
from reports.errors import ReportError
from reports.figure_style import INK, PALETTE, QUIET, calm, cost_axis, new_figure, plain, png, svg
from reports.markdown import escape, markdown_table
from reports.runs import NA, number
from reports.text_table import TextTable

INDEX_COLUMNS = (
    Column("recall", "recall@1", metric, "higher", "Share of patches whose nearest neighbour is the exact one."),
    column("image_auroc"),
    column("pixel_auroc"),
    Column("bank_bytes", "bank", size, "lower", "Bytes of the bank as it is written."),
    Column("build_seconds", "build", lambda value: f"{value:.1f} s", "lower", "Training the index and filling it."),
    Column("ms_search", "ms per image", milliseconds, "lower", "Median time of the search of one image's patches."),
    Column("ms_search_p95", "p95", milliseconds, "lower", "One image in twenty takes longer."),
)
STUDY_COLUMNS = (
    Column("dimension", "D", lambda value: f"{value:.0f}", "lower", "Length of a patch's vector."),
    column("bank_size"),
    column("image_auroc"),
    column("pixel_auroc"),
    column("aupro"),
    *(
        Column(f"ms_{stage}", f"ms {stage}", milliseconds, "lower", f"Median time of the stage {stage}, one image.")
        for stage in ("features", "embedding", "search", "scoring", "total")
    ),
)


@dataclass(frozen=True)
class Choice:
    """One way: its name, and its measured values by the names of columns; what was not measured is missing or None."""

    name: str
    values: Mapping[str, float | None]


def choices_table(choices: Sequence[Choice], columns: Sequence[Column], *, head: str) -> TextTable:
    """A row for each way, in their order.

    Raises:
        ReportError: there are none.
    """
    if not choices:
        raise ReportError("0 ways to show, 1 needed")
    rows = [[choice.name, *(_told(choice, each) for each in columns)] for choice in choices]
    return TextTable([head, *(each.title for each in columns)], rows, [False, *(True for _ in columns)])


def choices_markdown(choices: Sequence[Choice], columns: Sequence[Column], *, head: str, title: str, notes: str) -> str:
    """The table, what its columns mean, and how it was made."""
    lines = [f"# {escape(title)}", "", *markdown_table(choices_table(choices, columns, head=head))]
    lines += ["", *(f"- {escape(each.title)}: {each.help}" for each in columns), "", escape(notes), ""]
    return "\n".join(lines)


def choices_csv(choices: Sequence[Choice], columns: Sequence[Column], *, head: str) -> str:
    """The values as they were measured."""
    records = [
        {head: choice.name, **{each.name: choice.values.get(each.name) for each in columns}} for choice in choices
    ]
    return str(pd.DataFrame(records).to_csv(index=False))


def choices_figure(choices: Sequence[Choice], costs: Sequence[Column], *, title: str) -> dict[str, bytes]:
    """Image AUROC over each cost, a labelled point for each way; up is better, left is cheaper.

    Returns:
        `figure.png` and `figure.svg`.

    Raises:
        ReportError: no way has an AUROC and a cost.
    """
    auroc = column("image_auroc")
    figure = new_figure(5.6 * len(costs), 4.4)
    drawn = 0
    for axes, cost in zip(figure.subplots(1, len(costs), squeeze=False)[0], costs, strict=True):
        points = [
            (choice.name, x, y)
            for choice in choices
            if (x := number(choice.values, cost.name)) and (y := number(choice.values, auroc.name)) is not None
        ]
        calm(axes)
        drawn += len(points)
        if points:
            _scatter(axes, points)
            cost_axis(axes, [x for _, x, _ in points], cost.format)
        axes.set_xlabel(cost.title)
        axes.set_ylabel(auroc.title)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if not drawn:
        raise ReportError("no way has an image AUROC and a cost: the dataset needs good and defective test images")
    figure.suptitle(plain(title, 90), x=0.012, ha="left", fontsize=11, color=INK, fontweight="bold", parse_math=False)
    return {"figure.png": png(figure), "figure.svg": svg(figure)}


def _scatter(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    axes.margins(y=0.18)
    for place, (name, x, y) in enumerate(points):
        axes.plot([x], [y], "o", color=PALETTE[place % len(PALETTE)], ms=8.5, mec="white", mew=1, zorder=3)
        above = place % 2 == 0  # neighbours would cover each other
        axes.annotate(
            plain(name, 24), (x, y), (0, 8 if above else -8), textcoords="offset points", ha="center",
            va="bottom" if above else "top", fontsize=8, color=QUIET, parse_math=False,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _told(choice: Choice, each: Column) -> str:
    value = number(choice.values, each.name)
    return NA if value is None else each.format(value)
