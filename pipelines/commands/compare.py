"""compress compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import AsJson, BankSize, Coreset, Seed, Weights, listed
from pipelines.console import (
    ProgressBars,
    command_line,
    note,
    print_line,
    print_text_table,
    refuse_in_one_line,
    was_typed,
)

_SIDE = "A row of results, a folder of rows of one setting, or with --dataset an artifact or an architecture."


@refuse_in_one_line
def compare(
    context: typer.Context,
    first: Annotated[str, typer.Argument(help=_SIDE)],
    second: Annotated[str, typer.Argument(help="The same, which is compared with the first.")],
    dataset: Annotated[
        str | None, typer.Option(help="What artifacts and architectures are judged on: as for compress evaluate.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="One or more categories, comma-separated. Default: all.")] = None,
    weights: Weights = "auto",
    coreset: Coreset = 0.01,
    bank_size: BankSize = None,
    timing: Annotated[bool, typer.Option("--timing", help="Time the stages of what is judged now.")] = False,
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Of the test images, by the bootstrap.")] = 2000,
    seed: Seed = 0,
    as_json: AsJson = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the comparison as Markdown.")] = None,
) -> None:
    """Put two results side by side, and say whether their image AUROC differs by more than chance.

    compress compare runs/resnet18-dense-s0-tiles-a.json runs/resnet18-lcp-0.5-s0-tiles-a.json
    """
    from compress import CompressError
    from compress.files import atomic_write, require_writable
    from pipelines.compare import holds_rows, judge_side, read_side
    from pipelines.data import open_categories
    from pipelines.evaluate import DetectorSettings
    from reports import Run
    from reports.comparison import compare_runs, comparison_json, comparison_markdown, comparison_table

    if output:
        require_writable(output)
    models = [side for side in (first, second) if not holds_rows(side)]
    if models and dataset is None:
        raise CompressError(f"{models[0]} is no row of results: name a --dataset to judge it on, or a .json file")
    idle = ("dataset", "category", "weights", "coreset", "bank_size", "timing") if not models else ()
    for option in idle:
        if was_typed(context, option):
            raise CompressError(f"both are results already: leave --{option.replace('_', '-')} out, or name artifacts")
    settings = DetectorSettings(coreset=coreset, bank_size=bank_size, seed=seed, timing=timing)
    with ProgressBars() as bars:
        categories = open_categories(listed(dataset) or (), listed(category) or (), track=bars.track) if models else []

        def runs_of(side: str) -> list[Run]:
            if holds_rows(side):
                return read_side(side)
            return judge_side(side, weights, categories, settings, command=command_line(), track=bars.track)

        found = compare_runs(runs_of(first), runs_of(second), _names(first, second), resamples=resamples, seed=seed)
    if output:
        atomic_write(output, comparison_markdown(found, command_line()))
    if as_json:
        print_line(json.dumps(comparison_json(found), indent=1))
        return
    print_text_table(comparison_table(found))
    for caution in found.cautions:
        note(caution)
    print_line(found.verdict)


def _names(first: str, second: str) -> tuple[str, str]:
    """What tells the two apart in a heading: the names of files without their folders, where these differ."""
    short = [Path(side).stem if Path(side).is_file() else side for side in (first, second)]
    return (short[0], short[1]) if short[0] != short[1] else (first, second)
