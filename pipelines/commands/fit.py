"""compress fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import BankSize, Coreset, Dataset, Seed, Taps, Weights, listed
from pipelines.console import ProgressBars, command_line, note, print_line, refuse_in_one_line


@refuse_in_one_line
def fit(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the detector.")],
    backbone: Annotated[str, typer.Option(help="An artifact (.safetensors or .onnx) or an architecture.")],
    dataset: Dataset = "generated",
    category: Annotated[str | None, typer.Option(help="The category; needed where the dataset has several.")] = None,
    original: Annotated[
        Path | None,
        typer.Option(
            "--float",
            help="The artifact that an int8 --backbone was made from: tells how the scores differ from float ones.",
        ),
    ] = None,
    weights: Weights = "auto",
    taps: Taps = None,
    coreset: Coreset = 0.01,
    bank_size: BankSize = None,
    quantile: Annotated[
        float, typer.Option(help="Share of good images meant to score below the threshold, in (0, 1).")
    ] = 0.99,
    seed: Seed = 0,
) -> None:
    """Fit a detector on a category's good training images, and set its threshold on them alone.

    compress fit --backbone slim.safetensors --dataset bottles/ -o bottle.detector

    A folder with good/ alone will do: all of it trains. Where there are bad/ images too, 30 % of the good ones stay
    unseen, to be judged on with them.

    Scores on int8 features differ from those on float ones; by how much, on good training images and on painted
    defects, is told and recorded where the float network is given as well:

    compress fit --backbone slim-int8.onnx --float slim.safetensors --dataset bottles/ -o bottle.detector
    """
    from compress import CompressError, load_backbone
    from compress.files import require_writable
    from pipelines.data import open_categories
    from pipelines.detector_file import save_detector
    from pipelines.fit import FitSettings, fit_detector
    from pipelines.models import open_model, precision_of
    from pipelines.score_difference import require_origin

    file = require_writable(output)
    network = open_model(backbone, weights=weights, taps=listed(taps), seed=seed)
    float_network = None
    if original is not None:
        if original.suffix != ".safetensors":
            raise CompressError(
                f"--float {original} is no artifact: give the .safetensors that compress quantize read; of an "
                "architecture compress prune --ratio 0 makes one to quantize"
            )
        float_network = load_backbone(original)
        require_origin(network, float_network)
    settings = FitSettings(coreset, bank_size, seed, quantile)
    with ProgressBars() as bars:
        categories = open_categories((dataset,), listed(category) or (), train_only=True, track=bars.track)
        if len(categories) != 1:
            names = ", ".join(each.name for each in categories)
            raise CompressError(f"a detector is fitted on one category, not on {names}: choose with --category")
        detector = fit_detector(
            network, categories[0], settings, command=command_line(), original=float_network, track=bars.track
        )
    save_detector(detector, file)
    threshold = detector.description.threshold
    print_line(
        f"threshold {threshold.value:.4g}: quantile {threshold.quantile:g} of the held-out scores of "
        f"{threshold.images} good images; bank of {len(detector.bank)} patches"
    )
    if difference := detector.description.int8_difference:
        print_line(difference.told())
    elif precision_of(network) == "int8":
        note(f"how int8 changes the scores is not known: --float FILE tells, the artifact behind {backbone}")
    print_line(f"wrote {file}")
