"""The coreset: how fast it is, beside the textbook loop and anomalib's, and how far it reaches.

    python -m benchmarks.coreset [--images 200] [--ratio 0.01] [--threads 2] [--rounds 3]
    python -m benchmarks.coreset --peer FOLDER [--peer-picks 100]
    python -m benchmarks.coreset --millions 1,2,4 --bank 10000 --memory 2G [--folder FOLDER]

Features: ResNet-18's patches of magnetic tile's good training images (PRUNECORE_DATA), projected to 128 dimensions;
generated ones where that data is not at hand. Every contender gets the same rows and the same threads, they take
turns, and the smallest time of the rounds counts: on the wall, and of this process's processors, which others on the
machine disturb less. `plain` is the textbook in torch: one pass over all rows for each
pick, by the same formula in float32. Picks that differ from its are near ties: rounding decides there.

`--peer` installs anomalib 2.7 into an environment of its own in FOLDER and times its KCenterGreedy, for
all picks or, with `--peer-picks`, for the first of them: its time grows with the picks alone.

`--millions` writes generated patches (384 dimensions, float16) to disk and runs `two_level`, each in a process of its
own: seconds and the peak of resident memory less what the program itself takes. Parts have a size that the memory
decides, and the second level has `parts x bank` rows: both are linear in the patches, and so is what is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomaly.coreset import (
    ProjectedRows,
    covering_radius,
    greedy_coreset,
    random_coreset,
    random_directions,
    random_projection,
    two_level_coreset,
)
from anomaly.feature_file import FeatureFile
from anomaly.patchcore import PatchCore
from anomaly.progress import quiet
from pipelines import machine
from pipelines.byte_counts import byte_count
from pipelines.data import open_categories
from pipelines.models import open_torch_model

DAY_OF_A_LINE = 37.6e6  # patches: 48,000 images of 28 x 28
PEER = "anomalib==2.7.*"
PEER_SCRIPT = """
import json, sys, time
import numpy, torch
from anomalib.models.components import KCenterGreedy
file, picks, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
torch.manual_seed(0)
features = torch.from_numpy(numpy.load(file))
sampler = KCenterGreedy(embedding=features, sampling_ratio=(picks + 0.5) / len(features))
start = time.perf_counter()
chosen = sampler.select_coreset_idxs()
print(json.dumps({"seconds": time.perf_counter() - start, "picks": [int(row) for row in chosen]}))
"""


def plain_loop(features: Tensor, size: int, first: int) -> Tensor:
    norms = features.square().sum(dim=1)
    nearest = torch.full((len(features),), math.inf)
    picks = [first]
    for _ in range(size - 1):
        distances = torch.addmv(norms, features, features[picks[-1]], alpha=-2).add_(norms[picks[-1]])
        torch.minimum(nearest, distances, out=nearest)
        nearest[picks[-1]] = -math.inf
        picks.append(int(nearest.argmax()))
    return torch.tensor(picks)


def real_features(images: int) -> Tensor | None:
    if not os.environ.get("PRUNECORE_DATA"):
        return None
    backbone = open_torch_model("resnet18", weights="auto", taps=None, seed=0)
    detector = PatchCore(backbone, mean=backbone.mean, std=backbone.std)
    samples = open_categories(("magnetic_tile",), (), track=quiet)[0].train[:images]
    return detector.training_patches(samples).flatten(0, 2)


def generated_features(rows: int, dimensions: int = 384, *, seed: int = 0) -> Tensor:
    """Gaussian, of a spectrum that falls like that of real patches: four fifths of the variance in 32 directions."""
    spectrum = torch.arange(1, dimensions + 1).pow(-0.7)
    mixing = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(0)))[0]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dimensions, generator=generator) * spectrum @ mixing


def timed(work: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    """Seconds on the wall and of the processors, and the result."""
    start, processors = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - start, time.process_time() - processors, result


def race(features: Tensor, size: int, rounds: int, peer: Path | None, peer_picks: int | None, threads: int) -> None:
    first = int(greedy_coreset(features, 1).indices[0])
    contenders = {
        "greedy": lambda: greedy_coreset(features, size).indices,
        "plain": lambda: plain_loop(features, size, first),
        "two_level, 4 parts": lambda: (
            two_level_coreset(
                features, size, memory=len(features) // 4 * (4 * features.shape[1] + 64) + 20 * size * features.shape[1]
            ).indices
        ),
        "random": lambda: random_coreset(features, size).indices,
    }
    seconds, processors = dict.fromkeys(contenders, math.inf), dict.fromkeys(contenders, math.inf)
    picks: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name, work in contenders.items():
            taken, busy, picks[name] = timed(work)
            seconds[name], processors[name] = min(seconds[name], taken), min(processors[name], busy)
    for name, chosen in picks.items():
        radius = covering_radius(features, features[chosen])
        ratio, busy_ratio = seconds["plain"] / seconds[name], processors["plain"] / processors[name]
        print(
            f"{name:20} {len(chosen):6} picks {seconds[name]:9.3f} s (processors {processors[name]:9.3f} s)  "
            f"plain / this {ratio:8.1f} (processors {busy_ratio:8.1f})  radius {radius:.4f}",
            flush=True,
        )
    places = int((picks["greedy"] != picks["plain"]).sum())
    others = len({*picks["greedy"].tolist()} - {*picks["plain"].tolist()})
    print(f"greedy and plain: {places} of {size} picks at another place, {others} rows that are not in both")
    if peer:
        race_peer(features, peer_picks or size, seconds["greedy"] / size, peer, threads)


def race_peer(features: Tensor, picks: int, ours: float, folder: Path, threads: int) -> None:
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER, "torch", "torchvision"], check=True)  # noqa: S603 our own command
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "features.npy")
        np.save(file, features.numpy())
        command = [python, "-c", PEER_SCRIPT, str(file), str(picks), str(threads)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    found = json.loads(output.splitlines()[-1])
    theirs = found["seconds"] / len(found["picks"])
    radius = covering_radius(features, features[found["picks"]])
    same_size = covering_radius(features, features[greedy_coreset(features, len(found["picks"])).indices])
    print(
        f"anomalib             {len(found['picks']):6} picks {found['seconds']:9.3f} s  {1000 * theirs:.1f} ms a pick, "
        f"{theirs / ours:.0f} times ours  radius {radius:.4f}, greedy with as many {same_size:.4f}"
    )


def reach(millions: list[float], bank: int, memory: int, folder: Path, threads: int) -> None:
    context = multiprocessing.get_context("spawn")
    points = []
    for count in millions:
        ours, theirs = context.Pipe()
        child = context.Process(target=_reach, args=(theirs, int(count * 1e6), bank, memory, folder, threads))
        child.start()
        seconds, peak, radius, size = ours.recv()
        child.join()
        points.append((count * 1e6, seconds))
        print(
            f"two_level, {count:g} million: {seconds:.1f} s, {peak / 2**20:.0f} MiB of {memory / 2**20:.0f}, "
            f"{size / 2**30:.2f} GiB on disk, radius at most {radius:.4f}",
            flush=True,
        )
    if len(points) > 1:
        slope, constant = np.polyfit(*zip(*points, strict=True), 1)
        print(f"{DAY_OF_A_LINE / 1e6:g} million, extrapolated linearly: {constant + slope * DAY_OF_A_LINE:.0f} s")


def _reach(pipe: Connection, rows: int, bank: int, memory: int, folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = FeatureFile(Path(place), {"generated": rows}, dtype="float16")
        block = 1 << 15
        for start in range(0, rows, block):
            file.append(generated_features(min(block, rows - start), seed=start))
        projected = ProjectedRows(file, random_directions(file.shape[1]))
        greedy_coreset(projected[: 1 << 14], 100)  # what the libraries take for themselves
        machine.restart_peak()
        before = machine.peak_rss()
        start_time = time.perf_counter()
        chosen = two_level_coreset(projected, bank, memory=memory)
        seconds = time.perf_counter() - start_time
        size = sum(each.stat().st_size for each in Path(place).iterdir())
        pipe.send((seconds, machine.peak_rss() - before, chosen.radius, size))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and reach of the coreset.")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="folder of the environment that anomalib is installed into")
    parser.add_argument("--peer-picks", type=int, help="fewer picks for the peer; default: all")
    parser.add_argument("--millions", help="patches of the runs on disk, comma-separated, e.g. 1,2,4")
    parser.add_argument("--bank", type=int, default=10_000)
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine.describe()}, {options.threads} threads, torch {torch.__version__}", file=sys.stderr)
    if options.millions:
        millions = [float(count) for count in options.millions.split(",")]
        reach(millions, options.bank, byte_count(options.memory), options.folder, options.threads)
        return
    features = real_features(options.images)
    print("magnetic tile" if features is not None else "generated features")
    if features is None:
        features = generated_features(options.images * 784)
    projected = random_projection(features)
    del features
    size = int(len(projected) * options.ratio)
    print(f"{len(projected)} x {projected.shape[1]}, {size} picks")
    race(projected, size, options.rounds, options.peer, options.peer_picks, options.threads)


if __name__ == "__main__":
    main()
