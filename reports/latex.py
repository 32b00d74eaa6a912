"""The table of results for a paper: LaTeX with booktabs. Names come from files, so every one is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reports.columns import COLUMNS, KEYS, Column, Difference, Where
from reports.groups import Group
from reports.runs import NA, one_line
from reports.summary import Summary
from reports.table import same_everywhere

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "*": "{*}",  # at the start of a row, what ends the row before it would take them for its arguments
}  # fmt: skip


def results_latex(summary: Summary, command: str) -> str:
    """A `table` with a row per setting, means over categories and seeds, ± the deviation between seeds."""
    columns = [c for c in COLUMNS if Where.BRIEF in c.where]
    keys = [key for key in KEYS if key.name in summary.shown]
    heads = [*(key.title for key in keys), *(c.title for c in columns)]
    rows = [
        [*(_key(group, key.name) for key in keys), *(_value(group, c) for c in columns)] for group in summary.groups
    ]
    same = ", ".join(f"{title} {value}" for title, value in same_everywhere(summary))
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs}. Made by:",
            f"% {one_line(command)}",
            r"\begin{table}",
            r"  \centering",
            rf"  \begin{{tabular}}{{{'l' * len(keys)}{'r' * len(columns)}}}",
            r"    \toprule",
            f"    {_line(map(escape, heads))}",
            r"    \midrule",
            *(f"    {_line(row)}" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            rf"  \caption{{What each compression cost{f' ({escape(same)})' if same else ''}.}}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    r"""
    >>> escape("group_norm 50 %")
    'group\\_norm 50 \\%'
    """
    return re.sub(r"[\\{}$&#%_~^<>\[*]", lambda found: _SPECIAL[found.group()], one_line(text))


def _key(group: Group, name: str) -> str:
    return escape(group.setting.ratio_text if name == "ratio" else str(getattr(group.setting, name)))


def _value(group: Group, column: Column) -> str:
    mean = group.mean(column.name)
    if mean is None:
        return NA
    told = escape(column.format(mean.value)).replace(" ", "~")
    return (
        f"${told} \\pm {mean.spread:.3f}$"
        if mean.spread is not None and isinstance(column.compare, Difference)
        else told
    )


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
