"""What there is to choose from: compress datasets, methods, backbones."""

from __future__ import annotations

import json

from pipelines.commands.options import AsJson
from pipelines.console import print_line, print_table, refuse_in_one_line


@refuse_in_one_line
def datasets(as_json: AsJson = False) -> None:
    """List the datasets with a name and the folder layouts that are understood."""
    from anomaly import DATASETS, LAYOUTS

    rows = [[name, "dataset", named.summary] for name, named in DATASETS.items()]
    rows += [[name, "folder layout", layout.summary] for name, layout in LAYOUTS.items()]
    _list(["name", "kind", "what"], rows, as_json)


@refuse_in_one_line
def methods(as_json: AsJson = False) -> None:
    """List the pruning methods."""
    from compress import METHODS

    _list(["name", "what", "paper"], [[name, m.summary, m.paper] for name, m in METHODS.items()], as_json)


@refuse_in_one_line
def backbones(as_json: AsJson = False) -> None:
    """List the registered architectures; most convolutional networks of timm work too, by their timm name."""
    from compress import ARCHITECTURES

    rows = [[a.name, a.factory_name, ", ".join(a.taps)] for a in ARCHITECTURES.values()]
    _list(["name", "factory", "taps"], rows, as_json)


def _list(headers: list[str], rows: list[list[str]], as_json: bool) -> None:
    if as_json:
        print_line(json.dumps([dict(zip(headers, row, strict=True)) for row in rows], indent=1))
    else:
        print_table(headers, rows)
