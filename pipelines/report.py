"""From a results folder to a report folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from anomaly.progress import Track, quiet
from compress.errors import CompressError
from compress.files import atomic_write
from pipelines.results import read_results
from reports import USUAL, Summary, check_formats, render, summarize

PAGE = "index.html"


def write_report(
    results: Path, output: Path, *, command: str, formats: Collection[str] = USUAL, track: Track = quiet
) -> tuple[Summary, list[tuple[str, str]]]:
    """Write the report of all rows in `results` to `output`.

    Returns:
        The summary of the rows, and (name, reason) of what was left out.

    Raises:
        CompressError: no results folder, or `output` cannot be written.
        ReportError: no result to report, an unknown format, or one whose package is not installed.
    """
    check_formats(formats)
    runs, failures = read_results(results, track=track)
    summary = summarize(runs)
    for name, content in render(runs, failures, command, formats=formats, summary=summary).items():
        file = output / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CompressError(f"cannot write the report to {output}: {error.strerror}") from error
        atomic_write(file, content)
    return summary, failures
