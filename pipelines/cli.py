"""The command line. Each command parses, calls one function, and prints; the work is elsewhere."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.console import (
    FAILURES,
    OneLineRefusals,
    ProgressBars,
    note,
    print_line,
    print_table,
    refuse_in_one_line,
    was_typed,
)

if TYPE_CHECKING:
    from reports import TextTable

app = typer.Typer(
    name="compress",
    cls=OneLineRefusals,
    epilog="A model is a file that compress made or the name of an architecture (compress backbones). "
    "Exit codes: 0 done, 1 finished with failures, 2 refused.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Weights = Annotated[
    str,
    typer.Option(
        help="auto (what this machine has: $PRUNECORE_DATA/weights, the cache of ImageNet weights, the offline "
        "package), imagenet (downloads), offline (efficientnet_lite0 out of a Python package), none (random) or a FILE."
    ),
]
Taps = Annotated[
    str | None, typer.Option(help="Stages whose feature maps are used, e.g. layer2,layer3. Default: strides 8 and 16.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of every random choice.")]
Dataset = Annotated[
    str,
    typer.Option(help="generated, elpv, a folder (layouts: compress datasets) or one in $PRUNECORE_DATA/data."),
]
Coreset = Annotated[float, typer.Option(help="Share of the training patches that the memory bank keeps, in (0, 1].")]
BankSize = Annotated[
    int | None, typer.Option(help="Number of patches that the memory bank keeps, instead of --coreset.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(version("prunecore"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Slim vision backbones for anomaly detection, and see what each saving cost."""


@app.command()
@refuse_in_one_line
def prune(
    ratio: Annotated[float, typer.Option(help="Share of the channels of every layer to remove, in [0, 1).")],
    arch: Annotated[str, typer.Option(help="Architecture to slim, or an artifact to slim further.")] = "resnet18",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write it. Default: ARCH-pPERCENT.safetensors")
    ] = None,
    method: Annotated[
        str, typer.Option(help="How channels are ranked (compress methods lists the ways).")
    ] = "magnitude",
    weights: Weights = "auto",
    taps: Taps = None,
    seed: Seed = 0,
) -> None:
    """Remove channels from a backbone and write the smaller one.

    compress prune --arch resnet18 --ratio 0.5 -o slim.safetensors
    """
    import compress
    from compress.files import require_writable
    from compress.pruning import check_request
    from pipelines.models import open_model
    from pipelines.profile import sizes

    check_request(ratio, method)
    file = require_writable(output or Path(f"{Path(arch).stem}-p{round(ratio * 100):02d}.safetensors"))
    backbone = open_model(arch, weights=weights, taps=_listed(taps), seed=seed)
    slim = compress.prune(backbone, ratio=ratio, method=method, seed=seed)
    compress.save(slim, file)
    _print_sizes({"before": sizes(backbone), "after": sizes(slim)})
    note(f"weights: {slim.spec.weights.source}; no recovery was done, so features have suffered")
    print_line(f"wrote {file}")


@app.command()
@refuse_in_one_line
def profile(
    model: Annotated[str, typer.Argument(help="An artifact or an architecture.")],
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
    _print_sizes({"size and cost": costs})
    if layers:
        print_table(
            ["pruned layer", "channels before", "after"],
            [[name, str(before), str(after)] for name, (before, after) in layers.items()],
            numeric=[False, True, True],
        )


@app.command()
@refuse_in_one_line
def evaluate(
    model: Annotated[str, typer.Argument(help="An artifact or an architecture.")],
    dataset: Dataset = "generated",
    category: Annotated[str | None, typer.Option(help="One or more categories, comma-separated. Default: all.")] = None,
    weights: Weights = "auto",
    taps: Taps = None,
    coreset: Coreset = 0.01,
    bank_size: BankSize = None,
    timing: Annotated[bool, typer.Option("--timing", help="Time the stages too, one image at a time.")] = False,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the row as JSON (several categories: a list).")
    ] = None,
) -> None:
    """Fit PatchCore with a backbone and judge it on a dataset's test split, category by category.

    compress evaluate slim.safetensors --dataset bottles/ -o row.json
    """
    from compress.files import require_writable
    from pipelines.data import open_categories
    from pipelines.evaluate import DetectorSettings
    from pipelines.evaluate import evaluate as run
    from pipelines.models import open_model
    from pipelines.results import write_rows
    from reports import Run, terminal_columns

    if output:
        require_writable(output)
    backbone = open_model(model, weights=weights, taps=_listed(taps), seed=seed)
    settings = DetectorSettings(coreset, bank_size, seed, timing)
    with ProgressBars() as bars:
        categories = open_categories(_listed(dataset) or (), _listed(category) or (), track=bars.track)
        note(f"weights: {backbone.spec.weights.source}")
        rows = []
        try:
            for each in categories:
                rows.append(run(backbone, each, settings, command=_command(), track=bars.track)[0])
        finally:  # a category that is refused, or Ctrl-C, takes nothing from those that are finished
            if output and rows:
                write_rows(output, rows)
    _print_text(terminal_columns([Run(dataclasses.asdict(row)) for row in rows]))


@app.command()
@refuse_in_one_line
def sweep(
    context: typer.Context,
    plan: Annotated[
        Path | None,
        typer.Argument(
            help="A TOML file instead of the options below, with the keys archs, methods, ratios, datasets, "
            "categories, seeds, weights, taps, coreset, bank_size, timing."
        ),
    ] = None,
    archs: Annotated[str, typer.Option("--arch", "--archs", help="Architectures, comma-separated.")] = "resnet18",
    methods: Annotated[str, typer.Option(help="Pruning methods, comma-separated.")] = "magnitude",
    ratios: Annotated[
        str, typer.Option(help="Pruning ratios, comma-separated; 0 is the dense network.")
    ] = "0,0.3,0.5,0.7",
    datasets: Annotated[str, typer.Option("--dataset", "--datasets", help="Datasets, comma-separated.")] = "generated",
    category: Annotated[str | None, typer.Option(help="Categories, comma-separated. Default: all.")] = None,
    seeds: Annotated[str, typer.Option("--seed", "--seeds", help="Seeds, comma-separated.")] = "0",
    weights: Weights = "auto",
    taps: Taps = None,
    coreset: Coreset = 0.01,
    bank_size: BankSize = None,
    timing: Annotated[bool, typer.Option(help="Time the stages of each run.")] = True,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of results; a second sweep into it goes on.")
    ] = Path("runs"),
) -> None:
    """Run architectures x methods x ratios x datasets x seeds, each into a file of its own.

    A killed sweep goes on where it stopped when the same command is given again.

    compress sweep --arch resnet18 --ratios 0,0.3,0.5 --dataset bottles/ -o runs/
    """
    from pipelines.sweep import SweepPlan

    if plan is not None:
        _refuse_options_beside_a_plan(context)
        chosen = SweepPlan.from_toml(plan)
    else:
        chosen = SweepPlan(
            archs=_listed(archs) or (),
            methods=_listed(methods) or (),
            ratios=_numbers("--ratios", ratios, float),
            datasets=_listed(datasets) or (),
            categories=_listed(category) or (),
            seeds=_numbers("--seeds", seeds, int),
            weights=weights,
            taps=_listed(taps),
            coreset=coreset,
            bank_size=bank_size,
            timing=timing,
        )
    _sweep(chosen, output)
    note(f"compress report {output} -o report/ makes tables, figures and a page of it")


@app.command()
@refuse_in_one_line
def report(
    runs: Annotated[Path, typer.Argument(help="A folder of results, made by compress sweep.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write the report to.")] = Path("report"),
) -> None:
    """Write the comparison report: an HTML page, Markdown, CSV and figures."""
    _report(runs, output)


@app.command()
@refuse_in_one_line
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for results and report.")] = Path("demo"),
) -> None:
    """Prune EfficientNet-Lite0 at 0.3, 0.5 and 0.7, run PatchCore on four generated surfaces, and report."""
    from pipelines.demo import DEMO

    _sweep(DEMO, output / "runs")
    _report(output / "runs", output / "report")


@app.command()
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


@app.command()
@refuse_in_one_line
def datasets(as_json: AsJson = False) -> None:
    """List the datasets with a name and the folder layouts that are understood."""
    from anomaly import DATASETS, LAYOUTS

    rows = [[name, "dataset", named.summary] for name, named in DATASETS.items()]
    rows += [[name, "folder layout", layout.summary] for name, layout in LAYOUTS.items()]
    _list(["name", "kind", "what"], rows, as_json)


@app.command()
@refuse_in_one_line
def methods(as_json: AsJson = False) -> None:
    """List the pruning methods."""
    from compress import METHODS

    _list(["name", "what", "paper"], [[name, m.summary, m.paper] for name, m in METHODS.items()], as_json)


@app.command()
@refuse_in_one_line
def backbones(as_json: AsJson = False) -> None:
    """List the registered architectures; most convolutional networks of timm work too, by their timm name."""
    from compress import ARCHITECTURES

    rows = [[a.name, a.factory_name, ", ".join(a.taps)] for a in ARCHITECTURES.values()]
    _list(["name", "factory", "taps"], rows, as_json)


def _refuse_options_beside_a_plan(context: typer.Context) -> None:
    from compress import CompressError

    given = [name for name in context.params if name not in ("plan", "output") and was_typed(context, name)]
    if given:
        raise CompressError(f"--{given[0].replace('_', '-')} beside a TOML plan: write it into the plan")


def _sweep(plan: Any, folder: Path) -> None:
    from pipelines.sweep import sweep as run

    with ProgressBars() as bars:
        outcome = run(plan, folder, command=_command(), track=bars.track)
    note(f"{outcome.run} runs done, {outcome.kept} kept from before, {outcome.failed} failed, results in {folder}")
    if outcome.failed:
        raise typer.Exit(FAILURES)


def _report(runs: Path, output: Path) -> None:
    from pipelines.report import PAGE, write_report
    from reports import terminal_table

    rows, left_out = write_report(runs, output, command=_command())
    for name, reason in left_out:
        note(f"{name}: {reason}")
    _print_text(terminal_table(rows))
    print_line(f"wrote {output / PAGE}")


def _print_sizes(columns: dict[str, dict[str, int]]) -> None:
    from reports.columns import column

    first, *_ = columns.values()
    rows = [[column(name).title, *(column(name).format(each[name]) for each in columns.values())] for name in first]
    print_table(["", *columns], rows, numeric=[False, *(True for _ in columns)])


def _print_text(table: TextTable) -> None:
    print_table(table.headers, table.rows, numeric=table.numeric)


def _list(headers: list[str], rows: list[list[str]], as_json: bool) -> None:
    if as_json:
        print_line(json.dumps([dict(zip(headers, row, strict=True)) for row in rows], indent=1))
    else:
        print_table(headers, rows)


def _listed(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(option: str, text: str, kind: type[Any]) -> tuple[Any, ...]:
    from compress.errors import CompressError

    try:
        return tuple(kind(part) for part in _listed(text) or ())
    except ValueError:
        raise CompressError(f"{option} {text!r} is no comma-separated list of numbers, like 0,0.3,0.5") from None


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _command() -> str:
    return shlex.join(["compress", *sys.argv[1:]])
