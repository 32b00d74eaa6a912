"""The command line: its commands in the order of its help. What each does is in `pipelines.commands`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from pipelines.commands.compare import compare
from pipelines.commands.distill import distill
from pipelines.commands.evaluate import evaluate
from pipelines.commands.export import export
from pipelines.commands.fit import fit
from pipelines.commands.generate import generate
from pipelines.commands.index_report import index_report
from pipelines.commands.lists import backbones, datasets, methods
from pipelines.commands.predict import FORWARDED, predict
from pipelines.commands.pretrain import pretrain
from pipelines.commands.profile import profile
from pipelines.commands.prune import prune
from pipelines.commands.quantize import quantize
from pipelines.commands.report import report
from pipelines.commands.sensitivity import sensitivity
from pipelines.commands.status import status
from pipelines.commands.study import study
from pipelines.commands.sweep import demo, sweep
from pipelines.console import OneLineRefusals, print_line

app = typer.Typer(
    name="compress",
    cls=OneLineRefusals,
    epilog="A model is a file that compress made or the name of an architecture (compress backbones). "
    "Exit codes: 0 done, 1 finished with failures, 2 refused.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(version("prunecore"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Slim vision backbones for anomaly detection, and see what each saving cost."""


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Slim": (prune, distill, quantize, sensitivity, profile, pretrain),
    "Judge": (evaluate, sweep, status, report, compare, index_report, study, demo),
    "Deploy": (fit, export),
    "Look up": (datasets, methods, backbones, generate),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.command(rich_help_panel="Deploy", context_settings=FORWARDED, add_help_option=False)(predict)
