"""compress index-report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import BankSize, Coreset, Dataset, Sampler, Seed, Taps, Weights, listed
from pipelines.console import ProgressBars, command_line, note, print_line, print_text_table, refuse_in_one_line


@refuse_in_one_line
def index_report(
    model: Annotated[str, typer.Argument(help="An artifact or an architecture.")],
    dataset: Dataset = "generated",
    category: Annotated[str | None, typer.Option(help="One category. Default: the first.")] = None,
    indexes: Annotated[
        str | None,
        typer.Option(
            help="Indexes to compare, separated by spaces: exact, ivf, hnsw, sq8, fp16, ivf_pq, pca, pca_ivf or FAISS "
            "factory strings. Default: these, and FAISS's Flat."
        ),
    ] = None,
    weights: Weights = "auto",
    taps: Taps = None,
    coreset: Coreset = 0.1,
    bank_size: BankSize = None,
    sampler: Sampler = "greedy",
    timed: Annotated[int, typer.Option(min=1, help="Images to time, the indexes in turn on each.")] = 20,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write the table, CSV, JSON and figure to.")
    ] = None,
) -> None:
    """Search one memory bank by several indexes, and show what each costs in detection, memory and time.

    compress index-report resnet18 --dataset bottles/ --coreset 0.1 -o indexes/
    """
    from anomaly.memory_bank import check_index
    from pipelines import machine
    from pipelines.choices import write_choices
    from pipelines.data import open_categories
    from pipelines.evaluate import DetectorSettings
    from pipelines.index_report import INDEXES
    from pipelines.index_report import index_report as run
    from pipelines.models import open_model
    from pipelines.sensitivity import make_folder
    from reports.choices import INDEX_COLUMNS, choices_table

    chosen = tuple(indexes.split()) if indexes else INDEXES
    for name in chosen:
        check_index(name)
    if output:
        make_folder(output)
    backbone = open_model(model, weights=weights, taps=listed(taps), seed=seed)
    settings = DetectorSettings(coreset=coreset, bank_size=bank_size, seed=seed, sampler=sampler)
    with ProgressBars() as bars:
        found = open_categories(listed(dataset) or (), listed(category) or (), track=bars.track)[0]
        note(f"weights: {backbone.spec.weights.source}; category {found.dataset}/{found.name}")
        choices = run(backbone, found, settings, chosen, timed=timed, track=bars.track)
    print_text_table(choices_table(choices, INDEX_COLUMNS, head="index"))
    if output:
        costs = [column for column in INDEX_COLUMNS if column.name in ("ms_search", "bank_bytes")]
        title = f"What an index costs: {backbone.spec.arch} on {found.dataset}/{found.name}"
        made_by = {
            "command": command_line(), "machine": machine.describe(), "threads": machine.threads(),
            "images timed": timed, "seed": seed,
        }  # fmt: skip
        write_choices(output, choices, INDEX_COLUMNS, costs, head="index", title=title, made_by=made_by)
        print_line(f"wrote {output}")
