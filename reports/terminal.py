"""Results as plain strings for a terminal, which the caller draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from reports.columns import COLUMNS, STAGES, milliseconds
from reports.errors import ReportError
from reports.runs import NA, Run, number, text
from reports.summary import Summary
from reports.table import summary_table


@dataclass(frozen=True)
class TextTable:
    """Headers and rows of equal length; `numeric` columns are set flush right."""

    headers: list[str]
    rows: list[list[str]]
    numeric: list[bool]


def terminal_table(summary: Summary, *, brief: bool = True) -> TextTable:
    """The summary table, a row per setting; `brief` leaves out what a narrow terminal has no room for."""
    table = summary_table(summary, brief=brief)
    return TextTable(
        [head.title for head in table.heads],
        [[cell.line for cell in row] for row in table.rows],
        [head.numeric for head in table.heads],
    )


def terminal_columns(runs: Sequence[Run]) -> TextTable:
    """The runs of one setting side by side: a column per category and their mean, a row per quantity.

    Raises:
        ReportError: there are no runs.
    """
    if not runs:
        raise ReportError("0 runs to show, 1 needed")
    names = [text(run.row, "category") for run in runs]
    several = len(runs) > 1
    headers = ["", *names, *(["mean"] if several else [])]
    quantities = [(column.name, column.title, column.format) for column in COLUMNS]
    stages = [*STAGES, ("ms_total_p95", "total, p95"), ("ms_decode", "decode, before it")]
    quantities += [(name, f"ms {title}", milliseconds) for name, title in stages]
    rows = []
    for name, title, unit in quantities:
        values = [number(run.row, name) for run in runs]
        known = [value for value in values if value is not None]
        shown = [NA if value is None else unit(value) for value in values]
        rows.append([title, *shown, *([unit(fmean(known)) if known else NA] if several else [])])
    return TextTable(headers, rows, [False, *(True for _ in headers[1:])])
