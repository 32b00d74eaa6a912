"""compress sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import Seed, Taps, Weights, listed, numbers
from pipelines.console import ProgressBars, command_line, note, print_line, print_text_table, refuse_in_one_line


@refuse_in_one_line
def sensitivity(
    model: Annotated[str, typer.Argument(help="An artifact or an architecture.")],
    images: Annotated[
        str | None,
        typer.Option(help="Folders of images, comma-separated; 16 of them are used. Default: 16 generated ones."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="How channels are ranked (compress methods lists the ways).")
    ] = "magnitude",
    ratios: Annotated[
        str, typer.Option(help="Shares of a group's channels to remove, comma-separated, in (0, 1).")
    ] = "0.1,0.3,0.5,0.7,0.9",
    weights: Weights = "auto",
    taps: Taps = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write the figure, CSV and JSON to.")
    ] = None,
) -> None:
    """Cut each group of layers alone, at several ratios, and show how far the feature maps move.

    compress sensitivity resnet18 --images photographs/ -o sensitivity/
    """
    from pipelines.models import open_torch_model
    from pipelines.sensitivity import few_images, make_folder, measure, write_sensitivity
    from reports.sensitivity import sensitivity_table

    shares = numbers("--ratios", ratios, float)
    if output:
        make_folder(output)
    backbone = open_torch_model(model, weights=weights, taps=listed(taps), seed=seed)
    with ProgressBars() as bars:
        chosen = few_images(listed(images), track=bars.track)
        rows = measure(backbone, chosen, method=method, ratios=shares, seed=seed, track=bars.track)
    note(f"weights: {backbone.spec.weights.source}; each group was cut alone, and nothing was recovered")
    print_text_table(sensitivity_table(rows))
    if any(row.lost > 0 for row in rows):
        print_line("* its channels come out in the feature maps: those that go are lost to the detector besides")
    if output:
        title = f"{backbone.spec.arch}, channels ranked by {method}"
        made_by = {
            "model": model,
            "weights": backbone.spec.weights.source,
            "taps": list(backbone.spec.taps),
            "method": method,
            "seed": seed,
            "images": len(chosen),
            "command": command_line(),
        }
        write_sensitivity(output, rows, title=title, made_by=made_by)
        print_line(f"wrote {output}")
