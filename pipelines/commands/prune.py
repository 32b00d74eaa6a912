"""compress prune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import Seed, Taps, Weights, listed
from pipelines.console import note, print_line, print_sizes, refuse_in_one_line


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
    backbone = open_model(arch, weights=weights, taps=listed(taps), seed=seed)
    slim = compress.prune(backbone, ratio=ratio, method=method, seed=seed)
    compress.save(slim, file)
    print_sizes({"before": sizes(backbone), "after": sizes(slim)})
    note(f"weights: {slim.spec.weights.source}; no recovery was done, so features have suffered")
    print_line(f"wrote {file}")
