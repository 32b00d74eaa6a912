"""compress pretrain."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import Device
from pipelines.console import ProgressBars, note, print_line, refuse_in_one_line


@refuse_in_one_line
def pretrain(
    recipe: Annotated[str, typer.Argument(help="resnet18, mobilenet_v3_small, or a TOML file like theirs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the weights, in float16.")],
    device: Device = "auto",
) -> None:
    """Train a backbone from random weights on a teacher's features, without labels.

    compress pretrain resnet18 -o resnet18.safetensors

    This is how the bundled weights were made; the recipe names the teacher, the images, the steps and the seed. It
    takes hours of CPU; a killed run goes on where it was when the same command is given again.
    """
    from compress.files import require_writable
    from compress.weights.bundled import Card, write_bundled
    from pipelines.pretraining import PretrainingRecipe, follow, open_teacher
    from pipelines.slimming import forget, state_file

    file = require_writable(output)
    asked = PretrainingRecipe.read(recipe)
    teacher = open_teacher(asked)
    with ProgressBars() as bars:
        checkpoint = state_file(file, "training")
        backbone = follow(asked, teacher, device=device, checkpoint=checkpoint, track=bars.track, report=bars.report)
    source = backbone.spec.weights.source
    elsewhere = [] if device == "auto" else ["--device", device]
    # Without the folder: the card is for other machines.
    command = shlex.join(["compress", "pretrain", recipe, "-o", file.name, *elsewhere])
    card = Card(asked.arch, source, command, asked.sha256, teacher.spec.weights.sha256 or "")
    write_bundled(file, backbone.trunk.state_dict(), card)
    forget(file)
    note(f"{asked.arch}, {source}")
    print_line(f"wrote {file}")
