"""compress report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import listed
from pipelines.console import ProgressBars, command_line, note, print_line, print_text_table, refuse_in_one_line


@refuse_in_one_line
def report(
    runs: Annotated[
        Path, typer.Argument(help="A folder of results, made by compress sweep or by compress evaluate -o.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write the report to.")] = Path("report"),
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="html, markdown, csv, latex, png, svg, parquet, comma-separated, or all. Default: all but svg and "
            "parquet.",
        ),
    ] = None,
) -> None:
    """Write the comparison report: an HTML page, Markdown, CSV, LaTeX and figures.

    compress report runs/ -o report/
    """
    make_report(runs, output, listed(formats))


def make_report(runs: Path, output: Path, formats: tuple[str, ...] | None = None) -> None:
    """Write the report, and show its table."""
    from pipelines.report import PAGE, write_report
    from reports import FORMATS, USUAL, terminal_table

    chosen = FORMATS if formats == ("all",) else formats or USUAL
    with ProgressBars() as bars:
        summary, left_out = write_report(runs, output, command=command_line(), formats=chosen, track=bars.track)
    for name, reason in left_out:
        note(f"{name}: {reason}")
    print_text_table(terminal_table(summary))
    print_line(f"wrote {output / PAGE if 'html' in chosen else output}")
