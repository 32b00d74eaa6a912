"""The report as GitHub Markdown. Names come from files of unknown origin, so every one is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from reports.cautions import cautions
from reports.columns import column
from reports.figures import METRICS, Picture
from reports.provenance import Provenance
from reports.runs import one_line, plural
from reports.summary import Summary
from reports.table import (
    TIE,
    category_table,
    means_table,
    same_everywhere,
    summary_table,
    tells_ties,
)
from reports.text_table import TextTable
from reports.words import findings

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#!$&@])")


def report_markdown(
    summary: Summary,
    pictures: Sequence[Picture],
    suffix: str | None,
    facts: Provenance,
    failures: Sequence[tuple[str, str]],
    command: str,
) -> str:
    """The whole report; figures are linked as `figures/NAME.SUFFIX`, and left out without a suffix."""
    lines = ["# What each compression cost", "", f"{facts.sentence} Made by:", "", *fenced(command), "## Summary", ""]
    for finding in findings(summary):
        lines += [f"**{escape(finding.title)}**", "", *(f"- {escape(told)}" for told in finding.sentences), ""]
    lines += [f"> {escape(told)}\n" for told in cautions(summary)]
    lines += ["## Results", "", _same(summary), "", *markdown_table(summary_table(summary).text), ""]
    lines += [
        "In brackets: the difference to, or the factor against, the origin of the same arch and dataset, over the"
    ]
    lines += ["categories that both have; ± is the standard deviation between seeds; n/a is not available."]
    lines += [*([TIE] if tells_ties(summary) else []), "", "## Results per category", ""]
    for name in METRICS:
        if table := means_table(summary, column(name)):
            lines += [f"### {escape(column(name).title)} per category", "", *markdown_table(table.text), ""]
    lines += [*markdown_table(category_table(summary).text), ""]
    if pictures and suffix:
        lines += ["## Figures", ""]
        lines += [f"![{escape(picture.description)}](figures/{picture.name}.{suffix})\n" for picture in pictures]
    if failures:
        told = plural(len(failures), "run or file is", "runs or files are")
        lines += ["## Left out", "", f"{told} not in the tables above.", ""]
        lines += [f"- **{escape(name)}**: {escape(reason)}" for name, reason in failures]
        lines += [""]
    lines += ["## Made with", "", *(f"- {escape(name)}: {escape(value)}" for name, value in facts.facts), ""]
    lines += ["## Commands", ""]
    if facts.commands:
        lines += fenced("\n".join(command for _, command in facts.commands))
    else:
        lines += ["The runs do not say how they were made.", ""]
    return "\n".join(lines)


def escape(text: str) -> str:
    r"""
    >>> escape("a|b <script>")
    'a\\|b \\<script\\>'
    """
    return _SPECIAL.sub(r"\\\1", one_line(text))


def _same(summary: Summary) -> str:
    pairs = [f"{title} {escape(value)}" for title, value in same_everywhere(summary)]
    return f"The same for every run: {', '.join(pairs)}." if pairs else ""


def markdown_table(table: TextTable) -> list[str]:
    """The lines of a table."""
    rule = ["---:" if right else "---" for right in table.numeric]
    return [_row(map(escape, table.headers)), _row(rule), *(_row(map(escape, row)) for row in table.rows)]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def fenced(text: str) -> list[str]:
    """A code block whose fence is longer than any run of backticks inside."""
    body = "\n".join(one_line(line) for line in text.splitlines())
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", body)), default=0))
    return [f"{fence}sh", body, fence, ""]
