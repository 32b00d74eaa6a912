"""The whole report: every file of it, by name, as bytes."""

from __future__ import annotations

from collections.abc import Sequence

from reports.figures import figures
from reports.frame import results_csv
from reports.html import report_html
from reports.markdown import report_markdown
from reports.provenance import provenance
from reports.runs import Run
from reports.strips import strips
from reports.summary import summarize


def render(runs: Sequence[Run], failures: Sequence[tuple[str, str]], command: str) -> dict[str, bytes]:
    """Relative file name to content: `report.md`, `results.csv`, `index.html` and `figures/*.png`.

    Args:
        failures: (name, reason) of the runs that failed and the result files that were left out.
        command: what makes this report again.

    Raises:
        ReportError: there are no runs.
    """
    summary = summarize(runs)
    pictures, facts = figures(summary), provenance(runs, summary)
    pages = {
        "report.md": report_markdown(summary, pictures, facts, failures, command),
        "results.csv": results_csv(runs),
        "index.html": report_html(summary, pictures, strips(runs, summary), facts, failures, command),
    }
    files = {name: page.encode("utf-8", "replace") for name, page in pages.items()}
    return files | {f"figures/{picture.name}": picture.png for picture in pictures}
