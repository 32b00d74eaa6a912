"""What the user sees: results on stdout, everything else on stderr, and bars where someone watches."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from anomaly.errors import AnomalyError
from compress.errors import CompressError
from reports.errors import ReportError

T = TypeVar("T")
P = ParamSpec("P")

DONE, FAILURES, REFUSED = 0, 1, 2
_LOG_SECONDS = 10.0  # between the lines of one loop in a log

# A pipe or file has no width: tables are not to be folded there.
_out = Console(width=None if sys.stdout.isatty() else 240)
_err = Console(stderr=True, highlight=False)


def note(message: str) -> None:
    """One line for the person, not for the next program."""
    _err.print(message, markup=False, soft_wrap=True)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """A table of results; numbers to the right."""
    listed = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, header in enumerate(headers):
        numeric = all(row[index][:1].isdigit() or row[index] in ("", "n/a", "-") for row in listed)
        table.add_column(header, justify="right" if numeric else "left", no_wrap=index == 0)
    for row in listed:
        table.add_row(*row)
    _out.print(table, markup=False)


def print_line(text: str) -> None:
    """A line of results."""
    _out.print(text, markup=False, highlight=False, soft_wrap=True)


class ProgressBars:
    """Bars on a terminal, nested if loops are; in a log a line every ten seconds. Use as a context manager."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=_err,
            transient=True,
            disable=not _err.is_terminal,
        )

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def track(self, steps: Iterable[T], description: str, total: int) -> Iterator[T]:
        """Yield every item of `steps` and show how far it is (`anomaly.progress.Track`)."""
        if not _err.is_terminal:
            yield from _logged(steps, description, total)
            return
        task = self._bars.add_task(description, total=total)
        try:
            for step in steps:
                yield step
                self._bars.advance(task)
        finally:
            self._bars.remove_task(task)


def _logged(steps: Iterable[T], description: str, total: int) -> Iterator[T]:
    last = time.monotonic()
    for done, step in enumerate(steps, 1):
        yield step
        if time.monotonic() - last > _LOG_SECONDS:
            last = time.monotonic()
            note(f"{description}: {done} of {total}")


def refuse_in_one_line(command: Callable[P, None]) -> Callable[P, None]:
    """A refusal or Ctrl-C ends the command with one line on stderr and exit code 2, never a traceback."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (CompressError, AnomalyError, ReportError) as error:
            note(f"compress: {error}")
            raise typer.Exit(REFUSED) from None
        except KeyboardInterrupt:
            note("compress: interrupted; what was finished is kept")
            raise typer.Exit(REFUSED) from None

    return guarded
