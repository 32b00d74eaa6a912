"""compress quantize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import (
    CALIBRATION,
    MIXED,
    Backend,
    Calibrate,
    CalibrationCount,
    KeepFloat,
    Percentile,
    Seed,
    Taps,
    Weights,
    listed,
)
from pipelines.console import ProgressBars, note, print_line, print_table, refuse_in_one_line, was_typed

if TYPE_CHECKING:
    from compress import Backbone, MaxDrop, OnnxBackbone


@refuse_in_one_line
def quantize(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="An artifact or an architecture.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the ONNX file.")],
    images: Annotated[
        str | None,
        typer.Option(
            help="Folders of images to calibrate on, comma-separated; no labels needed. A dataset's good training "
            "images are best, photographs will do, test images never.",
            rich_help_panel=CALIBRATION,
        ),
    ] = None,
    calibration: Calibrate = "percentile",
    percentile: Percentile = 99.999,
    count: CalibrationCount = 128,
    keep_float: KeepFloat = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            help="Leave as few layers in float as bring the relative error of the maps below this, in (0, 1).",
            rich_help_panel=MIXED,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="The same for the image AUROC lost on a validation split of --dataset: its good training images, "
            "some with painted defects.",
            rich_help_panel=MIXED,
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="The dataset that --max-drop is judged on.", rich_help_panel=MIXED)
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Its categories, comma-separated. Default: all.", rich_help_panel=MIXED)
    ] = None,
    precision: Annotated[str, typer.Option(help="int8, or fp32 to export only.")] = "int8",
    backend: Backend = "onnxruntime",
    opset: Annotated[int, typer.Option(help="ONNX operator set, 18 to 23.")] = 18,
    weights: Weights = "auto",
    taps: Taps = None,
    seed: Seed = 0,
) -> None:
    """Make a backbone int8: a quarter of the bytes, a ResNet two to four times as fast, one ONNX file.

    compress quantize slim.safetensors --images photographs/ -o slim-int8.onnx

    Weights are rounded to 8 bits with a scale for each channel, activations with a scale for each tensor that is
    found on the images. The maps are compared with the float ones on images that were not calibrated on; a file
    whose maps are broken is not written. docs/quantization.md has the formulas.
    """
    import compress
    from compress import CompressError
    from compress.files import require_writable
    from compress.quantization import check_backend
    from pipelines.drop_search import check_drop
    from pipelines.image_sets import open_images
    from pipelines.models import open_torch_model

    if precision not in ("int8", "fp32"):
        raise CompressError(f"precision {precision!r} is neither int8 nor fp32: choose one")
    _refuse_idle(context, precision, calibration, dataset)
    rounding = compress.Calibration(calibration, percentile, count)
    check_backend(backend, rounding)
    if (max_drop is None) != (dataset is None):
        given, missing = ("--dataset", "--max-drop") if max_drop is None else ("--max-drop", "--dataset")
        raise CompressError(f"{given} without {missing} says nothing: give both")
    if max_drop is not None:
        check_drop(max_drop)
    file = require_writable(output)
    backbone = open_torch_model(model, weights=weights, taps=listed(taps), seed=seed)
    with ProgressBars() as bars:
        material = open_images(listed(images) or (), track=bars.track) if images else None
        if precision == "fp32":
            written = compress.export_onnx(backbone, file, opset=opset, images=material or ())
        else:
            if material is None:
                raise CompressError("int8 is calibrated on images: name a folder of them with --images DIR")
            written = compress.quantize(
                backbone,
                material,
                calibration=rounding,
                keep_float=keep_float or (),
                max_error=max_error,
                max_drop=_drop(backbone, dataset, category, max_drop, seed, bars),
                backend=backend,
                opset=opset,
                track=bars.track,
            )
            compress.save_onnx(written, file)
    _tell(backbone, written)
    print_line(f"wrote {file}")


def _refuse_idle(context: typer.Context, precision: str, calibration: str, dataset: str | None) -> None:
    """Raises CompressError for an option that what else was asked for leaves nothing to do."""
    from compress import CompressError

    idle: dict[str, str] = {}
    if precision == "fp32":
        rounding = ("calibration", "percentile", "count", "keep_float", "max_error", "max_drop", "backend")
        idle |= dict.fromkeys(rounding, "--precision fp32 rounds nothing")
    elif calibration != "percentile":
        idle["percentile"] = f"--calibration {calibration} keeps no percentile"
    if dataset is None:
        idle["category"] = "there is no --dataset that it is of"
    for name, why in idle.items():
        if was_typed(context, name):
            raise CompressError(f"--{name.replace('_', '-')} has no effect, {why}: drop it")


def _drop(
    backbone: Backbone, dataset: str | None, category: str | None, drop: float | None, seed: int, bars: ProgressBars
) -> MaxDrop | None:
    """What `--max-drop` and `--dataset` ask for."""
    from pipelines.data import open_categories
    from pipelines.quantizing import validation_drop

    if drop is None:
        return None
    categories = open_categories(listed(dataset) or (), listed(category) or (), track=bars.track)
    return validation_drop(backbone, categories, drop, seed=seed, track=bars.track)


def _tell(backbone: Backbone, written: OnnxBackbone) -> None:
    """What the new file holds and what it cost, against the float backbone in PyTorch."""
    from compress.artifact import artifact_bytes
    from pipelines.quantizing import alternating_latency

    eager, exported = (latency.steady for latency in alternating_latency([backbone, written]))
    record = written.header.quantization or {}
    errors = [f"{tap} {error:.3f}" for tap, error in record.get("map_errors", {}).items()]
    print_table(
        ["", "before", written.precision],
        [
            ["file bytes", f"{artifact_bytes(backbone):,}", f"{written.file_bytes:,}"],
            ["ms an image (PyTorch, exported)", f"{eager:.2f}", f"{exported:.2f}"],
            ["times as fast", "1", f"{eager / exported:.1f}"],
            *([["relative error of the maps", "-", ", ".join(errors)]] if errors else []),
        ],
        numeric=[False, True, True],
    )
    if record.get("float"):
        print_table(["layer in float", "why"], [[layer, why] for layer, why in record["float"].items()])
    for count, loss in record.get("trials", ()):
        note(f"{count} layers in float: {record['limit']['title']} {loss:.4f} (allowed {record['limit']['limit']:g})")
    if record:
        note(f"calibrated on {record['images']} images ({record['calibration']}), checked on 8 others")
