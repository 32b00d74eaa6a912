"""What int8 costs, by how it is calibrated: the tables of docs/quantization.md.

    python -m benchmarks.int8_cost resnet18 efficientnet_lite0 --images natural1k
    python -m benchmarks.int8_cost resnet18 slim.safetensors --calibrations percentile,mse \\
        --datasets magnetic_tile,generated --seeds 4 [-o differences.json]

The first table is the relative error ||f - q|| / ||f|| of each tap's map, on images that nothing was calibrated on: 16
of `--images`, beside at most `--count` that calibrate, all of them spread evenly.

The second, with `--datasets` (names, or folders of real images), is AUROC in int8 less AUROC in float: PatchCore with
the coreset of the protocol, on validation splits of each category's good training images, a part of them held out and
painted with defects (`pipelines.validation`). Test images are not opened. A split is a category and a seed, which also
draws the bank; both precisions see the same, and their differences are what is averaged. The standard error is that
of the mean over splits; splits of one category share images, so it is somewhat too small. The error of the maps is
there that of the worse tap, on painted images. One row more calibrates the first of `--calibrations` on the good images
that the detector is fitted on, and on no other ones.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import torch
from torch import Tensor

import compress
from anomaly.images import normalise
from anomaly.progress import quiet
from compress import Backbone, Calibration, CompressError, OnnxBackbone
from compress.export.parity import relative_error
from compress.export.views import normalised_views
from compress.quantization.procedure import CHECKED, places
from pipelines import machine
from pipelines.data import open_categories
from pipelines.evaluate import DetectorSettings
from pipelines.image_sets import open_images
from pipelines.models import open_torch_model
from pipelines.validation import ValidationAuroc, ValidationSplit, validation_auroc, validation_split

HELD_OUT = 16  # images that the errors are measured on
GOOD = "its good images"


class Difference(NamedTuple):
    """On one split: AUROC in int8 less AUROC in float, and the largest relative error of a map on defective images."""

    backbone: str
    calibration: str
    images: str
    split: str
    image: float
    pixel: float
    error: float


def calibration_of(name: str, count: int) -> Calibration:
    """`mse`, or `percentile:99.99`."""
    method, _, percent = name.partition(":")
    return Calibration(method, float(percent or 99.999), count)


def parted(images: Sequence[Tensor], count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Images to quantize with, and others to measure on, both spread evenly."""
    used, held = places(len(images), count + CHECKED, HELD_OUT)
    return [images[place] for place in used], [images[place] for place in held]


def errors(backbone: Backbone, int8: OnnxBackbone, views: Tensor) -> list[float]:
    """The relative error of each tap's map of a normalised batch."""
    with torch.inference_mode():
        return [
            relative_error(one.numpy(), other.numpy()) for one, other in zip(backbone(views), int8(views), strict=True)
        ]


def summary(values: Sequence[float]) -> str:
    """Mean, its standard error, and the worst."""
    spread = f" ± {stdev(values) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{fmean(values):+.4f}{spread} ({min(values):+.4f})"


def table(found: Sequence[Difference]) -> str:
    """A row for each backbone, calibration and kind of images."""
    lines = [
        "| backbone | calibration | on | splits | error of the maps | image AUROC, mean ± standard error (worst) "
        "| pixel AUROC |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for kind in dict.fromkeys(each[:3] for each in found):
        own = [each for each in found if each[:3] == kind]
        image, pixel = summary([each.image for each in own]), summary([each.pixel for each in own])
        error = fmean(each.error for each in own)
        lines.append(f"| {' | '.join(kind)} | {len(own)} | {error:.3f} | {image} | {pixel} |")
    return "\n".join(lines)


def differences(
    title: str,
    backbone: Backbone,
    int8: dict[str, OnnxBackbone],
    images: str,
    calibration: Calibration,
    datasets: Sequence[str],
    seeds: int,
) -> list[Difference]:
    """On each split: of the networks `int8`, calibrated on `images`, and of one calibrated on the good images."""
    found = []
    for category in open_categories(datasets, (), track=quiet):
        for seed in range(seeds):
            split = validation_split(category, seed=seed)
            before = judged(backbone, split, seed)
            defective = normalise(split.defective[:HELD_OUT], backbone.mean, backbone.std)
            good = open_images([], also=[sample.image for sample in split.fit])
            own = compress.quantize(backbone, good, calibration=calibration)
            candidates = [(name, images, each) for name, each in int8.items()] + [(next(iter(int8)), GOOD, own)]
            for name, source, candidate in candidates:
                after = judged(candidate, split, seed)
                found.append(
                    Difference(
                        title,
                        name,
                        source,
                        f"{category.dataset}/{category.name}/{seed}",
                        after.image - before.image,
                        after.pixel - before.pixel,
                        max(errors(backbone, candidate, defective)),
                    )
                )
                print(*found[-1], file=sys.stderr, flush=True)
    return found


def judged(backbone: Backbone | OnnxBackbone, split: ValidationSplit, seed: int) -> ValidationAuroc:
    return validation_auroc(backbone, split, DetectorSettings(seed=seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="+", help="artifacts or architectures")
    parser.add_argument("--weights", default="auto", help="of architectures, as `compress prune --weights`")
    parser.add_argument("--images", default="natural1k", help="a folder, here or in PRUNECORE_DATA, to calibrate on")
    parser.add_argument(
        "--calibrations",
        default="percentile,percentile:99.99,minmax,mse",
        help="comma-separated; percentile:99.9 is that percentile (default: %(default)s)",
    )
    parser.add_argument("--count", type=int, default=128, help="images to calibrate on (default: %(default)s)")
    parser.add_argument("--datasets", default="", help="comma-separated names or folders; none: no AUROC")
    parser.add_argument("--seeds", type=int, default=4, help="splits of each category (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("-o", "--output", type=Path, help="write the difference on each split as JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    names = given.calibrations.split(",")
    calibrating, held = parted(open_images([given.images]), given.count)
    print(f"{machine.describe()}, {len(calibrating) - CHECKED} images of {given.images}\n", flush=True)
    print("| backbone | calibration | relative error of the maps |\n|---|---|---:|", flush=True)
    found = []
    for model in given.backbones:
        file = Path(model)
        title = file.stem if file.is_file() else model
        backbone = open_torch_model(model, weights="auto" if file.is_file() else given.weights)
        views = normalised_views(held, range(len(held)), backbone.spec)
        int8 = {}
        for name in names:
            try:
                int8[name] = compress.quantize(backbone, calibrating, calibration=calibration_of(name, given.count))
                off = " / ".join(f"{error:.3f}" for error in errors(backbone, int8[name], views))
            except CompressError as error:  # maps that are broken: a result too
                off = f"refused: {error}"
            print(f"| {title} | {name} | {off} |", flush=True)
        if given.datasets and int8:
            first = calibration_of(next(iter(int8)), given.count)
            datasets = given.datasets.split(",")
            found += differences(title, backbone, int8, given.images, first, datasets, given.seeds)
    if found:
        print(f"\n{table(found)}")
    if given.output:
        given.output.write_text(json.dumps([each._asdict() for each in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
