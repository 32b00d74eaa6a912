"""The page reference/cli.md: what `--help` of every command says, read from the commands at build time."""

from __future__ import annotations

import argparse
import functools
import html
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import prunecore_runtime.cli
from pipelines.cli import app


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, "reference/cli.md", content="\n".join(_page())))
    return files


def _page() -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    yield "# The command line\n"
    yield "Made from the commands' own `--help` when this site was built.\n"
    yield html.escape(group.epilog) + "\n"
    for panel, commands in groupby(_by_panel(group.commands.values()), key=attrgetter("rich_help_panel")):
        yield f"## {panel}\n"
        for command in commands:
            yield f"### compress {command.name}\n"
            yield from _predict() if command.name == "predict" else _described(command)


def _described(command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=f"compress {command.name}")
    yield f"    {command.get_usage(context).removeprefix('Usage: ')}\n"
    for paragraph in command.help.split("\n\n"):
        example = paragraph.startswith("compress ")
        yield ("    " if example else "") + " ".join(paragraph.split()) + "\n"
    for panel, parameters in groupby(_by_panel(command.params), key=attrgetter("rich_help_panel")):
        if panel:
            yield f"**{panel}**\n"
        for parameter in parameters:
            if record := parameter.get_help_record(context):
                yield from _entry(*record)


def _by_panel(members: Iterable[Any]) -> list[Any]:
    """Commands or parameters, together with those of the same panel, as the help has them: in no panel first."""
    members = list(members)
    panels = [None, *dict.fromkeys(member.rich_help_panel for member in members)]
    return sorted(members, key=lambda member: panels.index(member.rich_help_panel))


def _entry(name: str, meaning: str) -> Iterator[str]:
    yield f"`{name}`\n:   {html.escape(meaning, quote=False).replace('*', chr(92) + '*')}\n"


def _predict() -> Iterator[str]:
    """The runtime has a parser of its own."""
    parser = prunecore_runtime.cli.parser()
    parser.prog = "compress predict"
    parser.formatter_class = functools.partial(argparse.HelpFormatter, width=100)  # of any terminal
    yield "".join(f"    {line}\n" for line in parser.format_help().splitlines())
