"""LCP, by forward passes alone, against Taylor importance, by gradients: what each costs and what each keeps.

    python benchmarks/lcp_against_taylor.py --images natural1k --count 200 --weights FILE [--detection] [--threads 1]

Both get the same decoded images and threads, and as many images are at work at a time (lcp's pass through the network
in fours, several at once); the dependency graph, which both need, is made before. Time: alternating in one run, the
median of the rounds, in seconds of this process's processors, which other processes on the machine disturb least; wall
time beside it. Memory: each in a process of its own, the peak of resident memory less what was resident before. `lcp,
fp32` is lcp held to the precision that Taylor runs in; `taylor, bf16` is Taylor given lcp's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import torch
from scipy.stats import spearmanr
from torch import Tensor

import compress
from compress import Backbone
from compress.graph import ChannelGroup
from compress.importance import METHODS, Evidence
from compress.importance.activations import BATCH, collect_statistics
from compress.importance.batches import LEAST
from compress.importance.gradients import collect_taylor
from compress.pruning import channel_groups
from pipelines import machine
from pipelines.image_sets import open_images
from pipelines.models import open_torch_model

Images = Sequence[Tensor]
Groups = Sequence[ChannelGroup]
Contender = Callable[[Backbone, Groups, Images, int], Evidence]


def lcp(backbone: Backbone, groups: Groups, images: Images, batch: int) -> Evidence:
    return Evidence(torch.Generator(), activations=collect_statistics(backbone, groups, images, batch=batch))


def lcp_fp32(backbone: Backbone, groups: Groups, images: Images, batch: int) -> Evidence:
    with patch("compress.importance.activations.bfloat16_pays", lambda device: False):
        return lcp(backbone, groups, images, batch)


def taylor(backbone: Backbone, groups: Groups, images: Images, batch: int) -> Evidence:
    return Evidence(torch.Generator(), taylor=collect_taylor(backbone, groups, images, batch=batch))


def taylor_bf16(backbone: Backbone, groups: Groups, images: Images, batch: int) -> Evidence:
    with torch.autocast("cpu", torch.bfloat16):
        return taylor(backbone, groups, images, batch)


CONTENDERS: dict[str, Contender] = {"taylor": taylor, "lcp": lcp, "taylor, bf16": taylor_bf16, "lcp, fp32": lcp_fp32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--weights", default="auto", help="as `compress prune --weights`")
    parser.add_argument("--images", default="natural1k", help="a folder, here or in PRUNECORE_DATA")
    parser.add_argument("--count", type=int, default=200, help="images of it, the first by name")
    parser.add_argument("--batch", type=int, default=BATCH, help="images a batch, for both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--detection", action="store_true", help="also evaluate on generated images: slow")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    backbone = open_torch_model(given.arch, weights=given.weights)
    images = open_images([given.images])[: given.count]
    print(
        f"{given.arch}, {len(images)} images, batches of {given.batch}, {given.threads} threads, {machine.describe()}\n"
    )
    peaks = {name: _peak(name, backbone, images, given.batch, given.threads) for name in CONTENDERS}
    groups, _ = channel_groups(backbone)
    found, seconds, wall = _time(backbone, groups, images, given.batch, given.rounds)
    print(f"{'':14} ms/image   ratio   (wall)  peak MB   ratio")
    for name in CONTENDERS:
        print(
            f"{name:14} {1000 * seconds[name] / len(images):8.2f} {seconds[name] / seconds['taylor']:7.3f} "
            f"{wall[name] / wall['taylor']:8.3f} {peaks[name] / 2**20:8.0f} {peaks[name] / peaks['taylor']:7.3f}"
        )
    scores = {name: _scores(groups, name.split(",")[0], evidence) for name, evidence in found.items()}
    print("\nrank correlation (Spearman, mean over groups)")
    for one, other in (("lcp", "taylor"), ("lcp", "lcp, fp32"), ("taylor, bf16", "taylor")):
        print(f"{one} : {other}   {_correlation(scores[one], scores[other]):.3f}")
    if given.detection:
        print("\nimage AUROC on generated images, pruned at 0.5 without recovery, mean over categories")
        for name, auroc in _detection(backbone, images).items():
            print(f"{name:14} {auroc:.4f}")


def _time(
    backbone: Backbone, groups: Groups, images: Images, batch: int, rounds: int
) -> tuple[dict[str, Evidence], dict[str, float], dict[str, float]]:
    """The evidence of each, and its median seconds of processor and of wall time."""
    found: dict[str, Evidence] = {}
    processor: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    wall: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, run in CONTENDERS.items():
            run(backbone, groups, images[: max(2 * batch, LEAST)], batch)  # warm up
            started, began = time.process_time(), time.perf_counter()
            found[name] = run(backbone, groups, images, batch)
            processor[name].append(time.process_time() - started)
            wall[name].append(time.perf_counter() - began)
    on_processor, on_wall = (
        {name: statistics.median(times) for name, times in own.items()} for own in (processor, wall)
    )
    return found, on_processor, on_wall


def _peak(name: str, backbone: Backbone, images: Images, batch: int, threads: int) -> int:
    """Bytes of resident memory that a run needs above what was there before it."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, name, backbone, list(images), batch, threads))
    process.start()
    sender.close()  # or a process that failed would be waited for forever
    peak: int = receiver.recv()
    process.join()
    return peak


def _measure(sender: Connection, name: str, backbone: Backbone, images: Images, batch: int, threads: int) -> None:
    torch.set_num_threads(threads)
    groups, _ = channel_groups(backbone)
    machine.restart_peak()
    before = machine.peak_rss()
    CONTENDERS[name](backbone, groups, images, batch)
    sender.send(machine.peak_rss() - before)


def _scores(groups: Groups, method: str, evidence: Evidence) -> list[Tensor]:
    return [METHODS[method].score(group, evidence) for group in groups]


def _correlation(one: list[Tensor], other: list[Tensor]) -> float:
    return statistics.mean(float(spearmanr(a, b).statistic) for a, b in zip(one, other, strict=True))


def _detection(backbone: Backbone, images: Images) -> dict[str, float]:
    """Mean image AUROC of the dense backbone and of each method's cut."""
    from anomaly.datasets import open_dataset
    from anomaly.datasets.generated import generate
    from pipelines.evaluate import DetectorSettings, evaluate

    slim = {name: compress.prune(backbone, ratio=0.5, method=name, images=images) for name in ("lcp", "taylor")}
    slim["magnitude"] = compress.prune(backbone, ratio=0.5)
    slim["random"] = compress.prune(backbone, ratio=0.5, method="random")
    with tempfile.TemporaryDirectory() as folder:
        categories = open_dataset(str(generate(Path(folder, "generated"), seed=0)), cache=folder)
        settings = DetectorSettings()
        aurocs = {
            name: [evaluate(own, each, settings, command="-")[0].image_auroc or 0.0 for each in categories]
            for name, own in {"dense": backbone, **slim}.items()
        }
    return {name: statistics.mean(values) for name, values in aurocs.items()}


if __name__ == "__main__":
    main()
