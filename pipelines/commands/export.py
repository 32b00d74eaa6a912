"""compress export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.console import note, print_line, refuse_in_one_line


@refuse_in_one_line
def export(
    detector: Annotated[Path, typer.Argument(help="What compress fit made.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the ONNX file.")],
    bank_precision: Annotated[str, typer.Option(help="Of the memory bank: float32, float16 or int8.")] = "float32",
) -> None:
    """Export a fitted detector as one ONNX file that runs without PyTorch (compress predict).

    compress export bottle.detector -o bottle.onnx --bank-precision int8
    """
    from anomaly.export import BankPrecision
    from compress.errors import unknown
    from compress.files import require_writable
    from pipelines.detector_file import load_detector
    from pipelines.export import export_detector
    from pipelines.models import precision_of

    precisions = [each.value for each in BankPrecision]
    if bank_precision not in precisions:
        raise unknown("bank precision", bank_precision, precisions, "see compress export --help")
    file = require_writable(output)
    fitted = load_detector(detector)
    parity = export_detector(fitted, file, BankPrecision(bank_precision))
    coarser = (
        "" if bank_precision == BankPrecision.FLOAT32 else f", the bank being {bank_precision} and Python's float32"
    )
    print_line(
        f"equal to Python's detector on {parity.images} images: scores within {parity.score:.1e} of their range, "
        f"maps within {parity.map:.1e}{coarser}"
    )
    if difference := fitted.description.int8_difference:
        print_line(difference.told())
    elif precision_of(fitted.backbone) == "int8":
        note(f"{detector} has an int8 backbone, and was not compared with float: compress fit --float FILE does")
    print_line(f"wrote {file} ({file.stat().st_size / 1e6:.2f} MB)")
