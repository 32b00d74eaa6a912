"""What a way of recovery gives: a row of the tables of docs/pruning.md for each command.

    python -m benchmarks.recovery --steps 400 --batch 16 --crop 224 --area 0.3,1 --frozen-norms 0.4 --datasets elpv
    python -m benchmarks.recovery --weights bundled --images generated,scenes --steps 240 --datasets generated
    python -m benchmarks.recovery --copied --ratio 0.5 --datasets magnetic_tile

Cuts a network by lcp, recovers it on `--images`, and tells how far its maps are from its parent's on held-out
photographs, as a squared error relative to the variance, and PatchCore's image and pixel AUROC by the protocol of the
README, the mean over the categories of `--datasets`. What is not given is as `compress prune` has it. With `--copied`
nothing is recovered, and the detector sees the channels of the parent's own maps that the cut keeps: all that a
recovery which copies them could reach.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

import compress
from compress import RECOVERIES, Backbone
from compress.pruning import Rule
from compress.recovery.record import record_of
from compress.training import TrainingSet
from compress.training.optimizer import OPTIMIZERS
from pipelines import machine
from pipelines.console import ProgressBars
from pipelines.data import open_categories
from pipelines.evaluate import DetectorSettings, evaluate
from pipelines.image_sets import open_images
from pipelines.places import find_weights

Kept = Mapping[str, Sequence[int]]
"""By stage the channels of the parent's map that are left; a stage that is missing has them all."""


@torch.no_grad()
def map_errors(slim: Backbone, parent: Backbone, kept: Kept, views: Tensor) -> list[float]:
    """Of each tap the squared error over the variance of the kept channels, on views (N, 3, 224, 224)."""
    errors = []
    for tap, own, whole in zip(slim.spec.taps, slim(views), parent(views), strict=True):
        wanted = whole[:, list(kept[tap])] if tap in kept else whole
        variance = (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().mean()
        errors.append(float((own - wanted).square().mean() / variance))
    return errors


class KeptChannels(Backbone):
    """A network, seen through some channels of its maps."""

    def __init__(self, network: Backbone, kept: Kept) -> None:
        super().__init__(network.spec, network.trunk)
        self._kept = [kept.get(tap) for tap in network.spec.taps]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = super().forward(x)
        return [whole if kept is None else whole[:, list(kept)] for whole, kept in zip(maps, self._kept, strict=True)]


def auroc(slim: Backbone, datasets: Sequence[str], seed: int) -> tuple[float, float]:
    """Image and pixel AUROC, means over the categories; no number where there are no masks."""
    with ProgressBars() as bars:
        categories = open_categories(datasets, (), track=bars.track)
        settings = DetectorSettings(seed=seed, timing=False)
        rows = [
            evaluate(slim, each, settings, command="benchmarks.recovery", data_fingerprint="", track=bars.track)[0]
            for each in categories
        ]
    pixels = [row.pixel_auroc for row in rows if row.pixel_auroc is not None]
    return fmean(row.image_auroc for row in rows), fmean(pixels) if pixels else float("nan")


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    parent = compress.create_backbone(arguments.arch, weights=find_weights(arguments.arch, arguments.weights))
    given = {name: getattr(arguments, name) for name in ("optimizer", "lr", "batch", "crop", "area", "frozen_norms")}
    recipe = replace(
        RECOVERIES["distill"].recipe, **{name: value for name, value in given.items() if value is not None}
    )
    with ProgressBars() as bars:
        images = open_images(arguments.images.split(","), track=bars.track)
        rule = Rule(scope=arguments.scope)
        cut = compress.prune(parent, ratio=arguments.ratio, method="lcp", rule=rule, images=images, seed=arguments.seed)
        kept = record_of(cut).stage_channels
        if arguments.copied:
            slim, done = KeptChannels(parent, kept).eval(), "the parent's own maps"
        else:
            slim = compress.distill(
                cut, parent, images, steps=arguments.steps, recipe=recipe, seed=arguments.seed, track=bars.track
            )
            done = f"{arguments.steps} steps on {arguments.images}, {recipe}"
        photographs = open_images([arguments.photographs], track=bars.track)
    held = TrainingSet.of(photographs, recipe, mean=slim.mean, std=slim.std, seed=arguments.seed)
    errors = map_errors(slim, parent, kept, torch.cat([batch.images for batch in held.held_out()]))
    image, pixel = auroc(slim, arguments.datasets.split(","), arguments.seed)
    print(f"{arguments.arch} ({parent.spec.weights.source}), lcp at {arguments.ratio:g}, {rule.scope}: {done}")
    print(f"{machine.describe()}\n")
    print("| maps' errors | image AUROC | pixel AUROC |\n|---|---:|---:|")
    print(f"| {' / '.join(f'{error:.3f}' for error in errors)} | {image:.3f} | {pixel:.3f} |")


def _area(text: str) -> tuple[float, float]:
    least, most = map(float, text.split(","))
    return least, most


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--scope", default="local")
    parser.add_argument("--copied", action="store_true", help="recover nothing: the kept channels of the parent's maps")
    parser.add_argument("--images", default="natural1k")
    parser.add_argument("--photographs", default="natural1k", help="what the maps' errors are measured on")
    parser.add_argument("--steps", type=int, default=RECOVERIES["distill"].steps)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="each wants an --lr of its own")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--crop", type=int)
    parser.add_argument("--area", type=_area, help="least and largest share, such as 0.3,1")
    parser.add_argument("--frozen-norms", type=float)
    parser.add_argument("--datasets", default="elpv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    main(parser.parse_args())
