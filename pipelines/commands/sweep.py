"""compress sweep, and compress demo, which is a sweep and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands.options import (
    CALIBRATION,
    Backend,
    BankSize,
    Calibrate,
    CalibrationCount,
    Coreset,
    Coverage,
    Draw,
    Features,
    FeaturesDtype,
    ImageFolders,
    Index,
    Kernel,
    LabelledFolder,
    Latency,
    MapNeighbours,
    Memory,
    Neighbours,
    Padding,
    Percentile,
    Pooling,
    Sampler,
    Score,
    Steps,
    Stride,
    Taps,
    Top,
    Weights,
    Width,
    listed,
    numbers,
)
from pipelines.commands.report import make_report
from pipelines.console import FAILURES, ProgressBars, command_line, note, refuse_in_one_line, was_typed


@refuse_in_one_line
def sweep(
    context: typer.Context,
    plan: Annotated[
        Path | None,
        typer.Argument(
            help="A TOML file instead of the options below, with the keys archs, methods, ratios, recovers, steps, "
            "images, labelled, one_shot, sparse_steps, scope, precisions, calibration_images, calibration, percentile, "
            "calibration_count, backend, datasets, categories, seeds, weights, taps, coreset, bank_size, sampler, "
            "coverage, memory, features, features_dtype, index, latency_ms, score, neighbours, top, map_neighbours, "
            "pooling, kernel, stride, padding, width, draw, timing."
        ),
    ] = None,
    archs: Annotated[str, typer.Option("--arch", "--archs", help="Architectures, comma-separated.")] = "resnet18",
    methods: Annotated[str, typer.Option(help="Pruning methods, comma-separated.")] = "magnitude",
    ratios: Annotated[
        str, typer.Option(help="Pruning ratios, comma-separated; 0 is the dense network.")
    ] = "0,0.3,0.5,0.7",
    recovers: Annotated[
        str | None,
        typer.Option(
            "--recover",
            "--recovers",
            help="none, distill, finetune, bn or reinit+distill (fresh weights, a control), comma-separated: each cut "
            "is run with each. Default: none,distill if --images are given, else none.",
        ),
    ] = None,
    images: ImageFolders = None,
    labelled: LabelledFolder = None,
    steps: Steps = None,
    precisions: Annotated[
        str,
        typer.Option(
            "--precision",
            "--precisions",
            help="fp32, int8 or both, comma-separated: each backbone is run in each. int8 is calibrated on "
            "--calibration-images or --images.",
        ),
    ] = "fp32",
    calibration_images: Annotated[
        str | None,
        typer.Option(
            help="Folders of images to calibrate on, comma-separated, best the dataset's good training images. "
            "Default: --images.",
            rich_help_panel=CALIBRATION,
        ),
    ] = None,
    calibration: Calibrate = "percentile",
    percentile: Percentile = 99.999,
    calibration_count: CalibrationCount = 128,
    backend: Backend = "onnxruntime",
    one_shot: Annotated[
        bool, typer.Option("--one-shot", help="Leave out the sparse phase of the methods that have one.")
    ] = False,
    sparse_steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sparse phase. Default: 500.")] = None,
    scope: Annotated[
        str | None, typer.Option(help="local, stage, global or isomorphic. Default: each method's own.")
    ] = None,
    datasets: Annotated[str, typer.Option("--dataset", "--datasets", help="Datasets, comma-separated.")] = "generated",
    category: Annotated[str | None, typer.Option(help="Categories, comma-separated. Default: all.")] = None,
    seeds: Annotated[str, typer.Option("--seed", "--seeds", help="Seeds, comma-separated.")] = "0",
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
    timing: Annotated[bool, typer.Option(help="Time the stages of each run.")] = True,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of results; a second sweep into it goes on.")
    ] = Path("runs"),
) -> None:
    """Run architectures x methods x ratios x precisions x datasets x seeds, each into a file of its own.

    A killed sweep goes on where it stopped when the same command is given again.

    compress sweep --arch resnet18 --ratios 0,0.3,0.5 --dataset bottles/ -o runs/
    """
    from compress.pruning import SPARSE_STEPS
    from pipelines.sweep_plan import SweepPlan

    if plan is not None:
        _refuse_options_beside_a_plan(context)
        chosen = SweepPlan.from_toml(plan)
    else:
        chosen = SweepPlan(
            archs=listed(archs) or (),
            methods=listed(methods) or (),
            ratios=numbers("--ratios", ratios, float),
            recovers=listed(recovers) or (("none", "distill") if images else ("none",)),
            steps=steps,
            images=listed(images) or (),
            labelled=labelled,
            one_shot=one_shot,
            sparse_steps=sparse_steps or SPARSE_STEPS,
            scope=scope,
            precisions=listed(precisions) or (),
            calibration_images=listed(calibration_images) or (),
            calibration=calibration,
            percentile=percentile,
            calibration_count=calibration_count,
            backend=backend,
            datasets=listed(datasets) or (),
            categories=listed(category) or (),
            seeds=numbers("--seeds", seeds, int),
            weights=weights,
            taps=listed(taps),
            coreset=coreset,
            bank_size=bank_size,
            sampler=sampler,
            coverage=coverage,
            memory=memory,
            features=str(features) if features else None,
            features_dtype=features_dtype,
            index=index,
            latency_ms=latency_ms,
            score=score,
            neighbours=neighbours,
            top=top,
            map_neighbours=map_neighbours,
            pooling=pooling,
            kernel=kernel,
            stride=stride,
            padding=padding,
            width=width,
            draw=draw,
            timing=timing,
        )
    _sweep(chosen, output)
    note(f"compress report {output} -o report/ makes tables, figures and a page of it")


@refuse_in_one_line
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for results and report.")] = Path("demo"),
) -> None:
    """Prune EfficientNet-Lite0 at 0.3, 0.5 and 0.7, run PatchCore on four generated surfaces, and report."""
    from pipelines.demo import DEMO

    _sweep(DEMO, output / "runs")
    make_report(output / "runs", output / "report")


def _refuse_options_beside_a_plan(context: typer.Context) -> None:
    from compress import CompressError

    given = [name for name in context.params if name not in ("plan", "output") and was_typed(context, name)]
    if given:
        raise CompressError(f"--{given[0].replace('_', '-')} beside a TOML plan: write it into the plan")


def _sweep(plan: Any, folder: Path) -> None:
    from pipelines.sweep import sweep as run

    with ProgressBars() as bars:
        outcome = run(plan, folder, command=command_line(), track=bars.track, report=bars.report)
    note(f"{outcome.run} runs done, {outcome.kept} kept from before, {outcome.failed} failed, results in {folder}")
    if outcome.failed:
        raise typer.Exit(FAILURES)
