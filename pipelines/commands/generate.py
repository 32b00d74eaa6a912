"""compress generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import Seed
from pipelines.console import ProgressBars, print_line, refuse_in_one_line


@refuse_in_one_line
def generate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make; it must not exist or be empty.")],
    train: Annotated[int, typer.Option(min=1, help="Good training images per surface.")] = 60,
    good: Annotated[int, typer.Option(min=1, help="Good test images per surface.")] = 30,
    per_defect: Annotated[int, typer.Option(min=1, help="Test images per kind of defect.")] = 6,
    seed: Seed = 0,
) -> None:
    """Make the generated dataset in a folder, to look at it or to have another seed or size."""
    from anomaly.datasets.generated import generate as make

    with ProgressBars() as bars:
        make(output, seed=seed, train=train, good=good, per_defect=per_defect, track=bars.track)
    print_line(f"wrote {output}")
