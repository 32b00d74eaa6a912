"""compress study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import BankSize, Coreset, Dataset, Index, Seed, Weights, listed
from pipelines.console import ProgressBars, command_line, note, print_line, print_text_table, refuse_in_one_line


@refuse_in_one_line
def study(
    what: Annotated[str, typer.Argument(help="taps or pooling.")],
    model: Annotated[str, typer.Argument(help="An architecture; for pooling also an artifact.")],
    dataset: Dataset = "generated",
    category: Annotated[str | None, typer.Option(help="One category. Default: the first.")] = None,
    sets: Annotated[
        str | None,
        typer.Option(
            help="Tap sets to compare, separated by spaces, e.g. 'layer2 layer2,layer3'. Default: all of the usual."
        ),
    ] = None,
    weights: Weights = "auto",
    coreset: Coreset = 0.01,
    bank_size: BankSize = None,
    index: Index = "auto",
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write the table, CSV, JSON and figure to.")
    ] = None,
) -> None:
    """Evaluate one backbone with several taps or poolings: accuracy beside the time of each stage.

    compress study pooling resnet18 --dataset bottles/ --bank-size 1000 -o pooling/
    """
    from pipelines import machine
    from pipelines.choices import write_choices
    from pipelines.data import open_categories
    from pipelines.evaluate import DetectorSettings
    from pipelines.sensitivity import make_folder
    from pipelines.study import check_study, pooling_ways, run_study, tap_ways
    from reports.choices import STUDY_COLUMNS, choices_table

    check_study(what)
    if output:
        make_folder(output)
    settings = DetectorSettings(coreset=coreset, bank_size=bank_size, seed=seed, index=index)
    if what == "taps":
        ways = tap_ways(model, (sets or "").split(), settings, weights=weights)
    else:
        ways = pooling_ways(model, settings, weights=weights)
    with ProgressBars() as bars:
        found = open_categories(listed(dataset) or (), listed(category) or (), track=bars.track)[0]
        note(f"category {found.dataset}/{found.name}")
        choices = run_study(ways, found, command=command_line(), track=bars.track)
    print_text_table(choices_table(choices, STUDY_COLUMNS, head=what))
    if output:
        costs = [column for column in STUDY_COLUMNS if column.name == "ms_total"]
        made_by = {"command": command_line(), "machine": machine.describe(), "threads": machine.threads(), "seed": seed}
        title = f"What {what} cost: {model} on {found.dataset}/{found.name}"
        write_choices(output, choices, STUDY_COLUMNS, costs, head=what, title=title, made_by=made_by)
        print_line(f"wrote {output}")
