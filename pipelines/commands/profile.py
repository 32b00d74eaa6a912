"""compress profile."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipelines.commands.options import AsJson
from pipelines.console import print_line, print_sizes, print_table, refuse_in_one_line


@refuse_in_one_line
def profile(
    model: Annotated[str, typer.Argument(help="An artifact, an ONNX backbone or an architecture.")],
    as_json: AsJson = False,
) -> None:
    """Show what is inside a backbone: taps, size, cost, how it was slimmed, the width of every pruned layer."""
    from pipelines.models import names_a_file, open_model
    from pipelines.profile import SIZES, describe

    # Size and cost of an architecture do not depend on its weights, so random ones do.
    description = describe(open_model(model, weights="auto" if names_a_file(model) else "none"))
    if as_json:
        print_line(json.dumps(description, indent=1))
        return
    layers = description.pop("layers")
    costs = {name: description.pop(name) for name in SIZES}
    print_table(["property", "value"], [[name, _shown(value)] for name, value in description.items()], title=model)
    print_sizes({"size and cost": costs})
    if layers:
        print_table(
            ["pruned layer", "channels before", "after"],
            [[name, str(before), str(after)] for name, (before, after) in layers.items()],
            numeric=[False, True, True],
        )


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
