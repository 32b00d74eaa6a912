"""What there is to choose from: compress datasets, methods, backbones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipelines.commands.options import AsJson
from pipelines.console import print_line, print_table, refuse_in_one_line

if TYPE_CHECKING:
    from compress.importance import Method


@refuse_in_one_line
def datasets(as_json: AsJson = False) -> None:
    """List the datasets with a name and the folder layouts that are understood."""
    from anomaly import DATASETS, LAYOUTS

    rows = [[name, "dataset", named.summary] for name, named in DATASETS.items()]
    rows += [[name, "folder layout", layout.summary] for name, layout in LAYOUTS.items()]
    _list(["name", "kind", "what"], rows, as_json)


@refuse_in_one_line
def methods(as_json: AsJson = False) -> None:
    """List the pruning methods and the recoveries."""
    from compress import METHODS, RECOVERIES

    rows = [[name, "pruning", m.scope, _needs(m), m.summary, m.paper] for name, m in METHODS.items()]
    needs = {True: "images with classes", False: "images"}
    rows += [[name, "recovery", "-", needs[r.labelled], r.summary, "-"] for name, r in RECOVERIES.items()]
    _list(["name", "kind", "scope", "needs", "what", "paper"], rows, as_json)


@refuse_in_one_line
def backbones(as_json: AsJson = False) -> None:
    """List the registered architectures; most convolutional networks of timm work too, by their timm name."""
    from compress import ARCHITECTURES
    from compress.weights import weights_of

    rows = [[a.name, a.factory_name, ", ".join(a.taps), ", ".join(weights_of(a))] for a in ARCHITECTURES.values()]
    _list(["name", "factory", "taps", "pretrained weights"], rows, as_json)


def _needs(method: Method) -> str:
    if method.penalty is not None:
        return "images, or --one-shot"
    return "-" if method.reads == "weights" else "images"


def _list(headers: list[str], rows: list[list[str]], as_json: bool) -> None:
    if as_json:
        print_line(json.dumps([dict(zip(headers, row, strict=True)) for row in rows], indent=1))
    else:
        print_table(headers, rows)
