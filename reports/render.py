"""The whole report: every file of it, by name, as bytes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from reports.errors import ReportError
from reports.figures import figures
from reports.frame import results_csv, results_parquet
from reports.html import report_html
from reports.latex import results_latex
from reports.markdown import report_markdown
from reports.provenance import provenance
from reports.runs import Run
from reports.strips import strips
from reports.summary import Summary, summarize

FORMATS = ("html", "markdown", "csv", "latex", "png", "svg", "parquet")
"""What `render` can write."""
USUAL = ("html", "markdown", "csv", "latex", "png")
"""What it writes unless told otherwise."""


def check_formats(formats: Collection[str]) -> None:
    """Raises ReportError where there is no format, or an unknown one."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ReportError(f"format {(unknown or ['of none'])[0]}: choose from {', '.join(FORMATS)}")


def render(
    runs: Sequence[Run],
    failures: Sequence[tuple[str, str]],
    command: str,
    *,
    formats: Collection[str] = USUAL,
    summary: Summary | None = None,
) -> dict[str, bytes]:
    """Relative file name to content: `index.html`, `report.md`, `results.csv`, `results.tex`, `results.parquet`, and
    `figures/*.png` and `.svg`.

    Args:
        failures: (name, reason) of the runs that failed and the result files that were left out.
        command: what makes this report again.
        formats: of `FORMATS`. Markdown links the PNG figures, or the SVG ones where only those are asked for.
        summary: of the same runs, where it is at hand: its bootstrap takes seconds.

    Raises:
        ReportError: there are no runs, an unknown format, or Parquet without pyarrow.
    """
    check_formats(formats)
    summary = summary or summarize(runs)
    facts = provenance(runs, summary)
    pictures = figures(summary) if {"html", "markdown", "png", "svg"} & set(formats) else []
    pages = {}
    if "markdown" in formats:
        suffix = next((name for name in ("png", "svg") if name in formats), None)
        pages["report.md"] = report_markdown(summary, pictures, suffix, facts, failures, command)
    if "csv" in formats:
        pages["results.csv"] = results_csv(runs)
    if "latex" in formats:
        pages["results.tex"] = results_latex(summary, command)
    if "html" in formats:
        pages["index.html"] = report_html(summary, pictures, strips(summary), facts, failures, command)
    files = {name: page.encode("utf-8", "replace") for name, page in pages.items()}
    if "parquet" in formats:
        files["results.parquet"] = results_parquet(runs)
    if "png" in formats:
        files |= {f"figures/{picture.name}.png": picture.png() for picture in pictures}
    if "svg" in formats:
        files |= {f"figures/{picture.name}.svg": picture.svg() for picture in pictures}
    return files
