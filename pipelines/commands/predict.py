"""compress predict: hands its words to the runtime, which has a parser of its own and needs no PyTorch."""

from __future__ import annotations

import typer

FORWARDED = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def predict(context: typer.Context) -> None:
    """Score images with an exported detector (the same as prunecore-predict)."""
    from prunecore_runtime.cli import main

    raise typer.Exit(main(context.args, program="compress predict"))
