"""What the documents show that can be tried: Python, and commands with their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import typer

import prunecore_runtime.cli
from pipelines.cli import app

# A block that the tests leave out stands below a paragraph that says so and why; output stands in fences of `text`.
_BLOCK = re.compile(
    r"^(?P<mark>\*Not run by the tests: [^\n]+(?:\n[^\n]+)*\n\n)?"
    r"(?:```(?P<language>\w+)\n(?P<fenced>.*?)^```|(?P<shell>(?:    [^\n]*\n)+))",
    flags=re.MULTILINE | re.DOTALL,
)


def to_be_run(document: str) -> Iterator[str]:
    """In their order, its blocks of Python and the lines of its indented blocks, but for what it says is not run."""
    for block in _BLOCK.finditer(document):
        if block["mark"]:
            continue
        if block["language"] == "python":
            yield block["fenced"]
        elif block["shell"]:
            yield from (line.strip() for line in block["shell"].splitlines())


def examples(document: str) -> list[str]:
    """Its blocks of Python."""
    return re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL)


def commands(document: str) -> list[list[str]]:
    """The words of each command in it, without `compress`."""
    return [
        shlex.split(line, comments=True) for line in re.findall(r"^    compress (.*)", document, flags=re.MULTILINE)
    ]


def options(command: str) -> set[str]:
    """What a command understands; predict has the runtime's own parser."""
    if command == "predict":
        return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", prunecore_runtime.cli.parser().format_help()))
    parameters = typer.main.get_command(app).commands[command].params
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
