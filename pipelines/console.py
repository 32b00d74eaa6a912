"""What the user sees: results on stdout, everything else on stderr, and bars where someone watches."""

from __future__ import annotations

import functools
import logging
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from prunecore_runtime.one_line import one_line

if TYPE_CHECKING:
    from anomaly.progress import Description
    from reports import TextTable

T = TypeVar("T")
P = ParamSpec("P")

DONE, FAILURES, REFUSED = 0, 1, 2
_LOG_SECONDS = 10.0  # between the lines of one loop in a log

# A pipe or file has no width: tables are not to be folded there.
_out = Console(width=None if sys.stdout.isatty() else 240)
_err = Console(stderr=True, highlight=False)


def note(message: str) -> None:
    """One line for the person, not for the next program."""
    _err.print(one_line(message), markup=False, soft_wrap=True)


def print_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[bool] = (), title: str | None = None
) -> None:
    """A table of results; `numeric` columns are set flush right."""
    title = _shown(title) if title else None
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for header, right in zip_longest(headers, numeric, fillvalue=False):
        table.add_column(_shown(str(header)), justify="right" if right else "left")
    for row in rows:
        table.add_row(*map(_shown, row))
    _out.print(table)


def print_text_table(table: TextTable) -> None:
    """A table that `reports` made."""
    print_table(table.headers, table.rows, numeric=table.numeric)


def print_sizes(columns: dict[str, dict[str, int]]) -> None:
    """A table of `pipelines.profile.sizes`: one column for each backbone, under its title."""
    from reports.columns import column

    first, *_ = columns.values()
    rows = [[column(name).title, *(column(name).format(each[name]) for each in columns.values())] for name in first]
    print_table(["", *columns], rows, numeric=[False, *(True for _ in columns)])


def print_line(text: str) -> None:
    """A line of results."""
    _out.print(_encodable(text), markup=False, highlight=False, soft_wrap=True)


def _shown(text: str) -> str:
    """In a table: names come from files, so they are no markup."""
    return escape(_encodable(text))


def _encodable(text: str) -> str:
    """What is no text in a file's name comes as its escape: stdout would refuse it."""
    return text.encode(errors="backslashreplace").decode()


def minutes(seconds: float | None) -> str:
    """A time as a person says it; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _Notes(logging.Handler):
    """What the library has to tell while it works, such as that a download begins, as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


_NOTES = _Notes(logging.WARNING)


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
        self._loss = self._held_out = ""

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def report(self, step: int, loss: float, held_out: float | None) -> None:
        """Show the loss of a training beside its progress (`compress.training.Report`)."""
        if held_out is not None:
            self._held_out = f", held-out {held_out:.4f}"
        self._loss = f" (loss {loss:.4f}{self._held_out})"

    def track(self, steps: Iterable[T], description: Description, total: int) -> Iterator[T]:
        """Yield every item of `steps` and show how far it is (`anomaly.progress.Track`)."""
        self._loss = self._held_out = ""
        described = description if callable(description) else lambda: description
        try:
            if _err.is_terminal:
                yield from self._drawn(steps, described, total)
            else:
                yield from self._logged(steps, described, total)
        finally:  # also where the loop is left early: the one around it has no loss
            self._loss = self._held_out = ""

    def _drawn(self, steps: Iterable[T], description: Callable[[], str], total: int) -> Iterator[T]:
        task = self._bars.add_task(description(), total=total)
        try:
            for step in steps:
                yield step
                self._bars.update(task, advance=1, description=f"{description()}{self._loss}")
        finally:
            self._bars.remove_task(task)

    def _logged(self, steps: Iterable[T], description: Callable[[], str], total: int) -> Iterator[T]:
        start = last = time.monotonic()
        for done, step in enumerate(steps, 1):
            yield step
            now = time.monotonic()
            if now - last > _LOG_SECONDS:
                last = now
                left = (now - start) / done * (total - done)
                note(f"{description()}: {done} of {total}{self._loss}, {left:.0f} s left")


# Typer brings a click of its own in some versions; this is the base of all its usage errors in each.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class OneLineRefusals(TyperGroup):
    """A command group that answers options it does not understand as it answers everything it refuses."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            note(f"compress: {error.format_message()} (--help tells)")  # type: ignore[attr-defined]
            raise typer.Exit(REFUSED) from None


def command_line() -> str:
    """The command as it was typed, for the results that it makes."""
    return shlex.join(["compress", *sys.argv[1:]])


def was_typed(context: typer.Context, option: str) -> bool:
    """Whether the user gave `option`, rather than its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def refuse_in_one_line(command: Callable[P, None]) -> Callable[P, None]:
    """A refusal or Ctrl-C ends the command with one line on stderr and exit code 2, never a traceback."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        # timm and fvcore script functions as they are imported, which torch calls deprecated in every run.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")
        logging.getLogger("compress").addHandler(_NOTES)  # once: a handler that is there is not added again
        try:
            _run(command, *args, **kwargs)
        except KeyboardInterrupt:
            note("compress: interrupted")
            raise typer.Exit(REFUSED) from None

    return guarded


def _run(command: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    # Imported here, not above: these packages load torch, and --help should not wait for it.
    from anomaly import AnomalyError
    from compress import CompressError
    from reports import ReportError

    try:
        command(*args, **kwargs)
    except (CompressError, AnomalyError, ReportError, OSError) as error:  # OSError: stdout itself, on a full disk
        note(f"compress: {error}")
        raise typer.Exit(REFUSED) from None
