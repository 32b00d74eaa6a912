"""Our Muon against torch.optim.Muon: milliseconds of a step on the convolutions of a slim network.

    python -m benchmarks.muon --ratio 0.5 --threads 1

Alternating in one run, on the same gradients; the median of the rounds. Torch's multiplies in bfloat16, ours too where
the processor has instructions for it.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from torch import nn

import compress
from compress.precision import bfloat16_pays
from compress.training.muon import Muon
from pipelines import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    slim = compress.prune(compress.create_backbone(given.arch, weights="none"), ratio=given.ratio)
    weights = [m.weight.detach().flatten(1) for m in slim.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    contenders: dict[str, torch.optim.Optimizer] = {
        "ours": Muon([nn.Parameter(each.clone()) for each in weights], weight_decay=0.0),
        "torch": torch.optim.Muon(
            [nn.Parameter(each.clone()) for each in weights], weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(given.rounds + 1):
        gradients = [torch.randn_like(each) for each in weights]
        for name, optimizer in contenders.items():
            for matrix, gradient in zip(optimizer.param_groups[0]["params"], gradients, strict=True):
                matrix.grad = gradient
            began = time.perf_counter()
            optimizer.step()
            times[name].append(1000 * (time.perf_counter() - began))
    ours, theirs = (median(own[1:]) for own in times.values())  # the first warms up
    print(f"{given.arch} at {given.ratio:g}, {given.threads} threads, {machine.describe()}")
    print(f"bfloat16 in the processor: {'yes' if bfloat16_pays(torch.device('cpu')) else 'no'}")
    print(f"ours {ours:.1f} ms, torch {theirs:.1f} ms: {theirs / ours:.1f} times")


if __name__ == "__main__":
    main()
