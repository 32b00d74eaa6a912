"""compress distill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import (
    Device,
    ImageFolders,
    LabelledFolder,
    OwnSeed,
    Steps,
    Weights,
    open_training_images,
)
from pipelines.console import ProgressBars, note, print_line, refuse_in_one_line


@refuse_in_one_line
def distill(
    model: Annotated[str, typer.Argument(help="A pruned artifact.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the better one.")],
    images: ImageFolders = None,
    labelled: LabelledFolder = None,
    recover: Annotated[str, typer.Option(help="distill, finetune (with --labelled) or bn.")] = "distill",
    steps: Steps = None,
    weights: Weights = "auto",
    device: Device = "auto",
    seed: OwnSeed = None,
) -> None:
    """Recover a pruned backbone, later or longer.

    compress distill slim.safetensors --images photographs/ --steps 5000 -o better.safetensors

    With its own seed and the same images as before, the same are held out. By others, some of which it was trained on,
    it would look better than it is, and what it learns anew worse.

    A killed run goes on where it was when the same command is given again.
    """
    import compress
    from compress import CompressError
    from compress.files import require_writable
    from pipelines.models import names_a_file, open_torch_model
    from pipelines.profile import history
    from pipelines.slimming import NO_RECOVERY, Recovering, forget, keeping_last_good, state_file

    if not names_a_file(model):
        raise CompressError(f"{model} is an architecture, and only what was pruned can be recovered: give an artifact")
    if recover == NO_RECOVERY:
        raise CompressError("recovery none leaves the backbone as it is: choose distill, finetune or bn")
    request = Recovering(recover, steps, device)
    if labelled is not None and not request.labelled:
        raise CompressError(f"recovery {recover} learns from no classes: give --images instead of --labelled")
    if images is not None and request.labelled:
        raise CompressError(f"recovery {recover} reads no images without classes: leave --images out")
    if weights != "auto" and not request.taught:
        raise CompressError(f"recovery {recover} learns from no dense parent: leave --weights out")
    file = require_writable(output)
    slim = open_torch_model(model)
    if slim.spec.pruning is None:
        raise CompressError(f"{model} is dense, so there is nothing to recover: prune it first")
    with ProgressBars() as bars:
        material = open_training_images(images, labelled, track=bars.track)
        request.check(material)
        teacher = request.teacher(slim, weights)
        own = slim.spec.pruning.seed if seed is None else seed
        run = request.run(own, state_file(file, "recovery"), bars.track, bars.report)
        with keeping_last_good(file):
            better = request.recover(slim, teacher, material, run)
    compress.save(better, file)
    forget(file)
    note(history(better))
    print_line(f"wrote {file}")
