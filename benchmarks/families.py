"""Which families of networks can be pruned: the table of docs/architectures.md.

    python -m benchmarks.families [NAME ...] [--limit 120]

One small member of each family is built with random weights, every norm, bias and scale randomised,
and pruned at 0.5. `compress.prune` itself proves that each stage's map is what is left of the dense one
(`compress.graph.silence`); here the slim network is also run whole, saved, loaded, and its maps compared bit for bit.
A network that takes longer than the limit, in seconds, is stopped and recorded as such.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

import compress
from compress import ARCHITECTURES, CompressError
from compress.backbone import whole_network
from compress.pruning import left_whole

FAMILIES = {
    "BotNet": "botnet26t_256",
    "ConvNeXt": "convnext_atto",
    "ConvNeXt V2": "convnextv2_atto",
    "CSPNet": "cspresnet50",
    "DarkNet": "darknet53",
    "DenseNet": "densenet121",
    "DLA": "dla34",
    "DPN": "dpn48b",
    "ECA-ResNet": "ecaresnet26t",
    "EdgeNeXt": "edgenext_xx_small",
    "EfficientNet": "efficientnet_b0",
    "EfficientNetV2": "tf_efficientnetv2_b0",
    "EfficientViT": "efficientvit_b0",
    "FasterNet": "fasternet_t0",
    "FBNet": "fbnetc_100",
    "GCResNet": "gcresnet33ts",
    "GENet": "gernet_s",
    "GhostNet": "ghostnet_050",
    "HardCoRe-NAS": "hardcorenas_a",
    "HGNetV2": "hgnetv2_b0",
    "HRNet": "hrnet_w18_small",
    "Inception V3": "inception_v3",
    "Inception V4": "inception_v4",
    "InceptionNeXt": "inception_next_atto",
    "LCNet": "lcnet_050",
    "MixNet": "mixnet_s",
    "MNASNet": "mnasnet_small",
    "MobileNetV2": "mobilenetv2_050",
    "MobileNetV4": "mobilenetv4_conv_small",
    "MobileOne": "mobileone_s0",
    "NF-Net": "nf_regnet_b0",
    "RegNetX": "regnetx_002",
    "RegNetY": "regnety_002",
    "RepGhost": "repghostnet_050",
    "RepVGG": "repvgg_a0",
    "RepViT": "repvit_m0_9",
    "Res2Net": "res2net50_26w_4s",
    "ResNeSt": "resnest14d",
    "ResNetV2": "resnetv2_50",
    "ResNeXt": "resnext50_32x4d",
    "ReXNet": "rexnet_100",
    "SE-ResNet": "seresnet18",
    "SelecSLS": "selecsls42",
    "SKNet": "skresnet18",
    "StarNet": "starnet_s1",
    "Swin": "swin_tiny_patch4_window7_224",
    "TResNet": "tresnet_m",
    "VGG-BN": "vgg11_bn",
    "VoVNet": "vovnet39a",
    "Xception": "xception41",
}


def measure(name: str) -> dict[str, Any]:
    """Prune, run, save and load one network."""
    started = time.perf_counter()
    dense = compress.create_backbone(name, weights="none")
    _randomise(dense)
    slim = compress.prune(dense, ratio=0.5)
    seconds = time.perf_counter() - started
    side = slim.spec.size
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = slim(images)
        whole_network(slim)(images)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "slim.safetensors")
            compress.save(slim, file)
            loaded = compress.load_backbone(file)
        same = all(torch.equal(own, other) for own, other in zip(maps, loaded(images), strict=True))
    if not same:
        raise AssertionError("the loaded network computes other maps than the saved one")
    sizes = [sum(parameter.numel() for parameter in network.trunk.parameters()) for network in (dense, slim)]
    return {"before": sizes[0], "after": sizes[1], "whole": left_whole(dense), "seconds": seconds}


def _randomise(backbone: compress.Backbone) -> None:
    """Norms, biases and layer scales away from one and zero, where a wrong channel would not show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*backbone.trunk.named_parameters(), *backbone.trunk.named_buffers()]:
            if tensor.ndim == 1:
                middle = 1.0 if name.endswith(("weight", "running_var", "gamma")) else 0.0
                tensor.copy_(middle + torch.rand(tensor.shape, generator=generator) / 2 - 0.25)


def within(name: str, limit: float) -> dict[str, Any]:
    """`measure` in a process of its own, stopped after `limit` seconds."""
    forked = multiprocessing.get_context("fork")
    ours, theirs = forked.Pipe()
    process = forked.Process(target=_answer, args=(name, theirs))
    process.start()
    try:
        return dict(ours.recv()) if ours.poll(limit) else {"refused": f"not done after {limit:g} s"}
    except EOFError:
        return {"refused": "the process died"}
    finally:
        process.kill()
        process.join()


def _answer(name: str, answer: Connection) -> None:
    try:
        answer.send(measure(name))
    except CompressError as error:
        answer.send({"refused": str(error)})
    except Exception as error:  # the table shows it as what it is: a fault of ours
        answer.send({"failed": f"{type(error).__name__}: {error}"})


def row(family: str, name: str, found: dict[str, Any]) -> str:
    """One line of the Markdown table."""
    if "before" not in found:
        return f"| {family} | `{name}` | {found.get('refused') or 'FAILED: ' + found['failed']} | | | |"
    reasons = "; ".join(sorted(set(found["whole"].values())))
    verdict = f"works; {len(found['whole'])} groups stay whole: {reasons}" if reasons else "works"
    before, after = (f"{found[key] / 1e6:.3f} M" for key in ("before", "after"))
    return f"| {family} | `{name}` | {verdict} | {before} | {after} | {found['seconds']:.1f} |"


def main(names: Iterable[str], limit: float) -> None:
    chosen = {name: name for name in ARCHITECTURES} | {model: family for family, model in FAMILIES.items()}
    print("| family | network | at 0.5 | parameters before | after | seconds |\n|---|---|---|---|---|---|")
    for name in names or chosen:
        print(row(chosen.get(name, name), name, within(name, limit)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--limit", type=float, default=120)
    torch.set_num_threads(1)
    arguments = parser.parse_args()
    main(arguments.names, arguments.limit)
