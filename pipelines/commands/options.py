"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

from typing import Annotated, Any

import typer

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


def listed(text: str | None) -> tuple[str, ...] | None:
    """The parts of a comma-separated list; None where the option was not given."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(option: str, text: str, kind: type[Any]) -> tuple[Any, ...]:
    """The numbers of a comma-separated list, each made by `kind`.

    Raises:
        CompressError: a part is no number; the message names `option`.
    """
    from compress.errors import CompressError

    try:
        return tuple(kind(part) for part in listed(text) or ())
    except ValueError:
        raise CompressError(f"{option} {text!r} is no comma-separated list of numbers, like 0,0.3,0.5") from None
