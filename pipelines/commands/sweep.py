"""compress sweep, and compress demo, which is a sweep and its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    KeepFloat,
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
from pipelines.console import (
    FAILURES,
    ProgressBars,
    command_line,
    minutes,
    note,
    print_line,
    print_table,
    refuse_in_one_line,
    was_typed,
)

if TYPE_CHECKING:
    from pipelines.sweep_plan import SweepPlan
    from pipelines.sweep_preview import Estimate

ENGINE = "Where the runs are computed, and who is told of them"


@refuse_in_one_line
def sweep(
    context: typer.Context,
    plan: Annotated[
        Path | None,
        typer.Argument(
            help="A TOML file instead of the options below, with the keys archs, methods, ratios, recovers, steps, "
            "images, labelled, one_shot, sparse_steps, scope, precisions, calibration_images, calibration, percentile, "
            "calibration_count, keep_float, backend, datasets, categories, seeds, weights, taps, coreset, bank_size, "
            "sampler, coverage, memory, features, features_dtype, index, latency_ms, score, neighbours, top, "
            "map_neighbours, pooling, kernel, stride, padding, width, draw, timing."
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
    keep_float: KeepFloat = None,
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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be run and how long it may take; run nothing. Images that --dataset generated "
            "lacks are still generated, and weights downloaded.",
        ),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help="serial (this process), processes (several, which divide the threads; of stage times only those of "
            "one worker compare) or ray (pip install 'prunecore\\[ray]').",
            rich_help_panel=ENGINE,
        ),
    ] = "serial",
    workers: Annotated[
        int | None, typer.Option(help="Runs at a time, for processes and ray. Default: 2.", rich_help_panel=ENGINE)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster, or auto. Default: a Ray of its own.", rich_help_panel=ENGINE),
    ] = None,
    num_gpus: Annotated[
        float, typer.Option(help="GPUs, or a share of one, for each run in Ray.", rich_help_panel=ENGINE)
    ] = 0.0,
    mlflow: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Tell an MLflow tracking store of every run, e.g. sqlite:///mlflow.db or http://server:5000 (pip "
            "install 'prunecore\\[mlflow]').",
            rich_help_panel=ENGINE,
        ),
    ] = None,
) -> None:
    """Run architectures x methods x ratios x precisions x datasets x seeds, each into a file of its own.

    A killed sweep goes on where it stopped when the same command is given again. compress status tells how it stands.

    compress sweep --arch resnet18 --ratios 0,0.3,0.5 --dataset bottles/ -o runs/
    """
    from compress.pruning import SPARSE_STEPS
    from pipelines.engines import DEFAULT_WORKERS, SERIAL, Workers, check_engine
    from pipelines.sweep_plan import SweepPlan
    from pipelines.tracking import Tracker

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
            keep_float=tuple(keep_float or ()),
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
    pool = Workers(workers, address, num_gpus)
    check_engine(engine, pool)
    if dry_run:
        _preview(chosen, output, pool.count or (1 if engine == SERIAL else DEFAULT_WORKERS))
        return
    failed = _sweep(chosen, output, engine=engine, workers=pool, tracker=Tracker(mlflow) if mlflow else None)
    if not failed:
        note(f"compress report {output} -o report/ makes tables, figures and a page of it")
    _exit_after(failed)


@refuse_in_one_line
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for results and report.")] = Path("demo"),
) -> None:
    """Slim ResNet-18 and MobileNetV3-Small, recover them, make them int8, run PatchCore on two surfaces, and report.

    Images are generated and weights ship with the package: no network is needed.
    """
    from pipelines.demo import DEMO

    failed = sum(_sweep(plan, output / "runs") for plan in DEMO)
    make_report(output / "runs", output / "report")
    _exit_after(failed)


_HOW_IT_RUNS = ("plan", "output", "dry_run", "engine", "workers", "address", "num_gpus", "mlflow")


def _refuse_options_beside_a_plan(context: typer.Context) -> None:
    from compress import CompressError

    given = [name for name in context.params if name not in _HOW_IT_RUNS and was_typed(context, name)]
    if given:
        raise CompressError(f"--{given[0].replace('_', '-')} beside a TOML plan: write it into the plan")


def _sweep(plan: SweepPlan, folder: Path, **how: Any) -> int:
    """Run the plan, say what came of it, and count the runs that failed."""
    from pipelines.sweep import sweep as run

    with ProgressBars() as bars:
        outcome = run(plan, folder, command=command_line(), track=bars.track, report=bars.report, **how)
    note(f"{outcome.run} runs done, {outcome.kept} kept from before, {outcome.failed} failed, results in {folder}")
    return outcome.failed


def _exit_after(failed: int) -> None:
    if failed:
        raise typer.Exit(FAILURES)


def _preview(plan: SweepPlan, folder: Path, workers: int) -> None:
    from pipelines.sweep_preview import preview

    with ProgressBars() as bars:
        found = preview(plan, folder, track=bars.track)
    states = {"to do": found.todo, "done": found.done}
    print_table(["run", "state"], [(run.name, state) for state, runs in states.items() for run in runs])
    if found.backbones:
        print_table(["backbone to make"], [(backbone.name,) for backbone in found.backbones])
    print_line(f"{len(found.todo)} runs to do, {len(found.done)} done, {len(found.backbones)} backbones to make")
    print_line(_time_of(found.estimate, folder, workers))


def _time_of(estimate: Estimate, folder: Path, workers: int) -> str:
    if not estimate.seconds and not estimate.unknown:
        return "time: none, all is done"
    if not estimate.seconds:
        return f"time: unknown, as nothing of the kind was run into {folder} before"
    # Divided by the workers, but those that share a machine slow each other down, by what nobody has measured.
    shared = f" with {workers} workers, longer if they share a machine" if workers > 1 else ""
    less = f"; without {', '.join(estimate.unknown)}, never run here before" if estimate.unknown else ""
    about = "at least" if estimate.unknown else "about"
    taken = f"the mean times of {estimate.rests_on} runs in {folder}"
    return f"time: {about} {minutes(estimate.seconds / workers)}{shared}, from {taken}{less}"
