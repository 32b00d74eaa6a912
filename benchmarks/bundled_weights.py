"""What the bundled weights are worth: the table of docs/bundled_weights.md.

    python -m benchmarks.bundled_weights [--datasets magnetic_tile,elpv,generated] [--seeds 0,1] [-o bundled_runs/]

PatchCore by the protocol of the README with random weights, the bundled ones, and the official ImageNet weights where
this machine has them (in PRUNECORE_DATA or a cache: nothing is downloaded), beside EfficientNet-Lite0 with the weights
of its package. A dataset's figure is the mean over its categories, then over seeds, with half the range between them.
The runs are those of a sweep: a killed one goes on where it stopped, and rows of other weights, which an earlier run
may have left in the folder, are not read. `--record` writes the image AUROC on magnetic_tile into the cards of the
bundled files, where `--weights auto` reads what they cost.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from compress.architectures import find_architecture
from compress.weights import bundled
from compress.weights.official import cached
from compress.weights.offline_package import ARCH as PACKAGED
from compress.weights.offline_package import package_file
from compress.weights.tensor_file import read_tensors
from pipelines import machine
from pipelines.console import ProgressBars, command_line
from pipelines.places import find_weights
from pipelines.results import read_results
from pipelines.sweep import sweep
from pipelines.sweep_plan import SweepPlan
from pipelines.sweep_runs import open_runs

Values = Mapping[str, Any]
DATASET = bundled.Card.dataset
CORESET = 0.01  # share of the patches: what the README's figures and the cards are measured with


class Contender(NamedTuple):
    """A network with weights: what the table calls them, and what finds them."""

    arch: str
    title: str
    weights: str


def contenders(archs: Sequence[str]) -> list[Contender]:
    """Of each architecture the random, the bundled and, if they are here, the official weights; then the package's."""
    found = []
    for arch in archs:
        found += [Contender(arch, "random", "none"), Contender(arch, "bundled", "bundled")]
        official = find_weights(arch, "local")  # a file of PRUNECORE_DATA
        if official == "local":
            official = "imagenet" if cached(find_architecture(arch)) else ""
        found += [Contender(arch, "official", official)] if official else []
    return [*found, Contender(PACKAGED, "offline package", "offline")] if package_file() else found


def measure(contender: Contender, plan: SweepPlan, folder: Path) -> list[Values]:
    """The rows of `plan` alone, whatever else lies in `folder`.

    Raises:
        SystemExit: a run failed, or a file that it reads was changed meanwhile; nothing may be recorded then.
    """
    with ProgressBars() as bars:
        failed = sweep(plan, folder, command=command_line(), track=bars.track).failed
    keys = {run.key for run in open_runs(plan)}  # the weights and images as they are now
    rows = [run.row for run in read_results(folder)[0] if run.row.get("key") in keys]
    if failed or len(rows) != len(keys):
        raise SystemExit(
            f"{contender.arch}, {contender.title}: {len(rows)} of {len(keys)} runs are there, {failed} failed: "
            f"read {folder}/*.failed.json and run this again"
        )
    return rows


def table(rows: Mapping[Contender, Sequence[Values]], datasets: Sequence[str]) -> str:
    """A row for each contender; of each dataset image and pixel AUROC."""
    heads = [f"{dataset}: {metric} AUROC" for dataset in datasets for metric in ("image", "pixel")]
    lines = [f"| network | weights | {' | '.join(heads)} |", f"|---|---|{'---:|' * len(heads)}"]
    for contender, own in rows.items():
        cells = [
            summary(by_seed(own, dataset, f"{metric}_auroc")) for dataset in datasets for metric in ("image", "pixel")
        ]
        lines.append(f"| {contender.arch} | {contender.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_seed(rows: Sequence[Values], dataset: str, metric: str) -> list[float]:
    """The mean over the categories of `dataset` for each seed; empty where it has no such metric."""
    found = defaultdict(list)
    for row in rows:
        if row["dataset"] == dataset and row[metric] is not None:
            found[row["seed"]].append(row[metric])
    return [fmean(values) for values in found.values()]


def summary(values: Sequence[float]) -> str:
    """Mean and half the range."""
    if not values:
        return "n/a"
    spread = f" (±{(max(values) - min(values)) / 2:.3f})" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def record(rows: Mapping[Contender, Sequence[Values]]) -> None:
    """Write what was measured into the cards."""
    for arch in dict.fromkeys(contender.arch for contender in rows if contender.title == "bundled"):
        measured = {
            contender.title: round(fmean(values), 4)
            for contender, own in rows.items()
            if contender.arch == arch and (values := by_seed(own, DATASET, "image_auroc"))
        }
        file = bundled.FOLDER / f"{arch}.safetensors"
        card = dataclasses.replace(bundled.card_of(arch), dataset=DATASET, image_auroc=measured)
        bundled.write_bundled(file, read_tensors(file), card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", default=",".join(bundled.bundled_archs()), help="(default: %(default)s)")
    parser.add_argument("--datasets", default="magnetic_tile,elpv,generated", help="(default: %(default)s)")
    parser.add_argument("--seeds", default="0,1", help="(default: %(default)s)")
    parser.add_argument("--coreset", type=float, default=CORESET, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--record", action="store_true", help="write the figures into the bundled files")
    parser.add_argument("-o", "--output", type=Path, default=Path("bundled_runs"), help="folder of runs")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    datasets = given.datasets.split(",")
    if given.record and (given.coreset != CORESET or DATASET not in {Path(name).name for name in datasets}):
        parser.error(f"--record is for {DATASET} at --coreset {CORESET}: add the dataset, or leave --record out")
    rows: dict[Contender, list[Values]] = {}
    for contender in contenders(given.archs.split(",")):
        folder = given.output / f"{contender.arch}-{contender.title.replace(' ', '-')}"
        plan = SweepPlan(
            archs=(contender.arch,),
            weights=contender.weights,
            ratios=(0.0,),
            datasets=tuple(datasets),
            seeds=tuple(map(int, given.seeds.split(","))),
            coreset=given.coreset,
            timing=False,
        )
        rows[contender] = measure(contender, plan, folder)
    names = list(dict.fromkeys(row["dataset"] for own in rows.values() for row in own))
    print(f"{machine.describe()}\n\n{table(rows, names)}")
    if given.record:
        record(rows)


if __name__ == "__main__":
    main()
