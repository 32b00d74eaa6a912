"""Results as plain strings for a terminal, which the caller draws."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from reports.columns import COLUMNS, STAGES, milliseconds
from reports.errors import ReportError
from reports.runs import NA, Run, number, text
from reports.summary import Summary
from reports.table import summary_table
from reports.text_table import TextTable


def terminal_table(summary: Summary, *, brief: bool = True) -> TextTable:
    """The summary table, a row per setting; `brief` leaves out what a narrow terminal has no room for."""
    return summary_table(summary, brief=brief).text


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
