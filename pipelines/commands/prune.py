"""compress prune."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import (
    TRAINING,
    Device,
    ImageFolders,
    LabelledFolder,
    Seed,
    Steps,
    Taps,
    Weights,
    listed,
    open_training_images,
)
from pipelines.console import ProgressBars, note, print_line, print_sizes, print_table, refuse_in_one_line

if TYPE_CHECKING:
    from compress.pruning import Target

_TARGETS = "Targets, instead of a ratio"
_CUT = "The cut"


@refuse_in_one_line
def prune(
    ratio: Annotated[
        float | None, typer.Option(help="Share of the channels to remove, in [0, 1). Or give a target.")
    ] = None,
    arch: Annotated[str, typer.Option(help="Architecture to slim, or an artifact to slim further.")] = "resnet18",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write it. Default: named after ARCH and the goal.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="How channels are ranked (compress methods lists the ways).")
    ] = "magnitude",
    weights: Weights = "auto",
    taps: Taps = None,
    seed: Seed = 0,
    target_params: Annotated[
        str | None,
        typer.Option(help="At most so many parameters up to the last tap: 700k or 25%.", rich_help_panel=_TARGETS),
    ] = None,
    target_macs: Annotated[
        str | None, typer.Option(help="At most so many MACs up to the last tap: 400M or 25%.", rich_help_panel=_TARGETS)
    ] = None,
    target_size: Annotated[
        str | None, typer.Option(help="A file of at most this size: 1MB or 25%.", rich_help_panel=_TARGETS)
    ] = None,
    target_latency: Annotated[
        str | None,
        typer.Option(
            help="At most this time for one image, measured here and now: 5ms or 25%.", rich_help_panel=_TARGETS
        ),
    ] = None,
    max_auroc_drop: Annotated[
        float | None,
        typer.Option(
            help="The largest ratio that loses at most this much image AUROC: up to 10 networks are cut, recovered and "
            "judged on --dataset's training images, some held out and painted with defects; test images stay unseen. "
            "A limit below 0.01 is within the noise.",
            rich_help_panel=_TARGETS,
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="For --max-auroc-drop: as for compress evaluate.", rich_help_panel=_TARGETS)
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="For --max-auroc-drop: one or more, comma-separated.", rich_help_panel=_TARGETS)
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="local (every layer loses the same share), stage (stage maps stay whole, the inside of blocks loses "
            "more; detects better at the same size), global (all layers ranked together) or isomorphic (ranked "
            "together where layers are alike). Default: the method's own.",
            rich_help_panel=_CUT,
        ),
    ] = None,
    round_to: Annotated[
        int | None,
        typer.Option(
            help="Keep channels in multiples of this. Default: 8 for --target-latency, else 1.", rich_help_panel=_CUT
        ),
    ] = None,
    max_layer_ratio: Annotated[
        float | None, typer.Option(help="No layer loses a larger share, in (0, 1).", rich_help_panel=_CUT)
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="Leave layers so named whole, e.g. 'layer1.*'; may be repeated.", rich_help_panel=_CUT),
    ] = None,
    protect_taps: Annotated[
        bool,
        typer.Option(
            "--protect-taps", help="Tapped channels stay: memory banks and heads still fit.", rich_help_panel=_CUT
        ),
    ] = False,
    iterative: Annotated[
        int, typer.Option(min=1, help="Spread the ratio over so many cuts, each recovered.", rich_help_panel=_CUT)
    ] = 1,
    images: ImageFolders = None,
    labelled: LabelledFolder = None,
    one_shot: Annotated[
        bool,
        typer.Option(
            "--one-shot",
            help="Leave out the sparse phase of batch_norm, growing_reg or group_norm.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    sparse_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the sparse phase. Default: 500.", rich_help_panel=TRAINING)
    ] = None,
    recover: Annotated[
        str | None,
        typer.Option(
            help="distill (onto the dense parent, no labels), finetune (with --labelled), bn (statistics alone) or "
            "none. Default: distill if images are given.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    steps: Steps = None,
    reinit: Annotated[
        bool,
        typer.Option(
            "--reinit",
            help="Draw fresh weights after the cut: a control of what inherited ones are worth.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    device: Device = "auto",
) -> None:
    """Remove channels from a backbone, recover what that cost, and write the smaller one.

    compress prune --arch resnet18 --ratio 0.5 --images photographs/ -o slim.safetensors

    A killed run goes on where it was when the same command is given again.
    """
    import compress
    from compress import CompressError
    from compress.files import require_writable
    from compress.pruning import SPARSE_STEPS, Rule, find_method
    from pipelines.data import open_categories
    from pipelines.drop_search import check_drop
    from pipelines.models import check_model, names_a_file, open_torch_model
    from pipelines.profile import history, sizes
    from pipelines.slimming import NO_RECOVERY, Recovering, Slimming, forget, keeping_last_good
    from pipelines.within_drop import slim_within_drop, told

    targets = {"params": target_params, "macs": target_macs, "size": target_size, "latency": target_latency}
    target = _target(targets)
    goals = [goal for goal in (ratio, target, max_auroc_drop) if goal is not None]
    if not goals:
        raise CompressError("nothing says how much to prune: give --ratio 0.5, one of the targets, or --max-auroc-drop")
    if len(goals) > 1:
        raise CompressError(f"{len(goals)} goals contradict each other: give one of --ratio, target and drop")
    if (max_auroc_drop is None) != (dataset is None):
        raise CompressError("--max-auroc-drop and --dataset go together: give both or none")
    if category is not None and dataset is None:
        raise CompressError(f"--category {category}, but no --dataset that it is of: give both or none")
    if max_auroc_drop is not None:
        check_drop(max_auroc_drop)
    rule = Rule(
        scope=scope or find_method(method).scope,
        round_to=round_to if round_to is not None else 8 if target_latency else 1,
        max_layer_ratio=max_layer_ratio,
        ignore=tuple(ignore or ()),
        protect_taps=protect_taps,
    )
    default = NO_RECOVERY if not images and not labelled else "distill" if images else "finetune"
    recovery = recover or default
    if recovery == NO_RECOVERY and steps is not None:
        raise CompressError(f"--steps {steps}, but no recovery to spend them on: give --images, or drop --steps")
    if sparse_steps is not None and (one_shot or find_method(method).penalty is None):
        raise CompressError(f"--sparse-steps {sparse_steps}, but no sparse phase to spend them on: drop it")
    request = Slimming(
        method=method,
        ratio=0.0 if max_auroc_drop is not None else ratio,
        target=target,
        rule=rule,
        one_shot=one_shot,
        sparse_steps=sparse_steps or SPARSE_STEPS,
        cuts=iterative,
        recovering=None if recovery == NO_RECOVERY else Recovering(recovery, steps, device),
        reinit=reinit,
        device=device,
    )
    stem = Path(arch).stem if names_a_file(arch) else arch
    file = require_writable(output or Path(f"{stem}-{_goal(ratio, max_auroc_drop, targets)}.safetensors"))
    # An artifact has its own weights: what is given beside one that its parent is to teach is the parent's.
    own = "auto" if names_a_file(arch) and request.recovering and request.recovering.taught else weights
    check_model(arch)
    with ProgressBars() as bars:
        material = open_training_images(images, labelled, track=bars.track)
        request.check(material)
        backbone = open_torch_model(arch, weights=own, taps=listed(taps), seed=seed)
        teacher = request.recovering.teacher(backbone, weights) if request.recovering else backbone
        with keeping_last_good(file):
            if max_auroc_drop is None:
                made = request.slim(
                    backbone, teacher, material, seed=seed, keep=file, track=bars.track, report=bars.report
                )
            else:
                categories = open_categories(listed(dataset) or (), listed(category) or (), track=bars.track)
                search = slim_within_drop(
                    request, backbone, teacher, material, categories, max_auroc_drop,
                    seed=seed, keep=file, track=bars.track, report=bars.report,
                )  # fmt: skip
                made = search.best
    compress.save(made, file)
    forget(file)
    if max_auroc_drop is not None:
        print_table(["ratio", "validation AUROC"], told(search), numeric=[True, True])
    print_sizes({"before": sizes(backbone), "after": sizes(made)})
    note(history(made))
    print_line(f"wrote {file}")


def _target(given: Mapping[str, str | None]) -> Target | None:
    """The one target that was given, if any."""
    from compress import CompressError
    from compress.pruning import Target

    targets = [Target.parse(kind, text) for kind, text in given.items() if text is not None]
    if len(targets) > 1:
        raise CompressError(
            f"{len(targets)} targets contradict each other: give one, and look at the others afterwards"
        )
    return targets[0] if targets else None


def _goal(ratio: float | None, drop: float | None, targets: Mapping[str, str | None]) -> str:
    """What was asked for, as part of a file's name: p50, drop0.01, params700k, macs25pct."""
    if ratio is not None:
        return f"p{100 * ratio:.4g}"
    if drop is not None:
        return f"drop{drop:g}"
    return next(f"{kind}{text}" for kind, text in targets.items() if text).replace("%", "pct").replace(" ", "")
