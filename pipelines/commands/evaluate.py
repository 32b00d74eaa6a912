"""compress evaluate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import (
    BankSize,
    Coreset,
    Coverage,
    Dataset,
    Draw,
    Features,
    FeaturesDtype,
    Index,
    Kernel,
    Latency,
    MapNeighbours,
    Memory,
    Neighbours,
    Padding,
    Pooling,
    Sampler,
    Score,
    Seed,
    Stride,
    Taps,
    Top,
    Weights,
    Width,
    listed,
)
from pipelines.console import ProgressBars, command_line, note, print_text_table, refuse_in_one_line


@refuse_in_one_line
def evaluate(
    model: Annotated[str, typer.Argument(help="An artifact, an ONNX backbone or an architecture.")],
    dataset: Dataset = "generated",
    category: Annotated[str | None, typer.Option(help="One or more categories, comma-separated. Default: all.")] = None,
    weights: Weights = "auto",
    taps: Taps = None,
    coreset: Coreset = 0.01,
    bank_size: BankSize = None,
    sampler: Sampler = "greedy",
    coverage: Coverage = None,
    memory: Memory = None,
    features: Features = None,
    features_dtype: FeaturesDtype = "float32",
    index: Index = "auto",
    latency_ms: Latency = None,
    score: Score = "max",
    neighbours: Neighbours = 9,
    top: Top = 10,
    map_neighbours: MapNeighbours = 1,
    pooling: Pooling = "average",
    kernel: Kernel = 3,
    stride: Stride = 1,
    padding: Padding = None,
    width: Width = None,
    draw: Draw = "random",
    timing: Annotated[bool, typer.Option("--timing", help="Time the stages too, one image at a time.")] = False,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write the row as JSON (several categories: a list), and its scores and images to .npz beside it.",
        ),
    ] = None,
) -> None:
    """Fit PatchCore with a backbone and judge it on a dataset's test split, category by category.

    compress evaluate slim.safetensors --dataset bottles/ -o row.json
    """
    from anomaly import Embedding, Scoring
    from compress.files import require_writable
    from pipelines.byte_counts import byte_count
    from pipelines.data import open_categories
    from pipelines.evaluate import DetectorSettings
    from pipelines.evaluate import evaluate as run
    from pipelines.models import open_model
    from pipelines.results import write_rows
    from reports import Run, terminal_columns

    if output:
        require_writable(output)
    backbone = open_model(model, weights=weights, taps=listed(taps), seed=seed)
    settings = DetectorSettings(
        coreset=coreset,
        bank_size=bank_size,
        seed=seed,
        timing=timing,
        sampler=sampler,
        coverage=coverage,
        memory=None if memory is None else byte_count(memory),
        features=features,
        features_dtype=features_dtype,
        index=index,
        latency_ms=latency_ms,
        embedding=Embedding(pooling, kernel, stride, padding, width, draw),
        scoring=Scoring(score, neighbours, top, map_neighbours),
    )
    with ProgressBars() as bars:
        categories = open_categories(listed(dataset) or (), listed(category) or (), track=bars.track)
        note(f"weights: {backbone.spec.weights.source}")
        made = []
        try:
            for each in categories:
                made.append(run(backbone, each, settings, command=command_line(), track=bars.track))
        finally:  # a category that is refused, or Ctrl-C, takes nothing from those that are finished
            if output and made:
                write_rows(output, made)
    print_text_table(terminal_columns([Run(dataclasses.asdict(row)) for row, _ in made]))
