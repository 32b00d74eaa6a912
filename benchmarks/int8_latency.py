"""What pruning and int8 give a backbone in speed and bytes: the table of README and docs/quantization.md.

    python -m benchmarks.int8_latency slim.safetensors --images natural1k [--threads 2] [--rounds 100]

The dense parent of the given artifact in eager PyTorch and in ONNX Runtime, then the slim backbone in float and in
int8, and the int8 files in OpenVINO where it is installed. Images of 224 x 224, one at a time. All candidates take
turns in one run, so that a slow second slows all of them. The table has medians of images one after another, how many
times faster than the two dense ones that is, and the first image after a pause. Random weights are as fast as trained
ones, so the dense parent needs none.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

import compress
from compress.artifact import artifact_bytes
from compress.export.runtimes import import_openvino
from pipelines import machine
from pipelines.image_sets import open_images
from pipelines.quantizing import alternating_latency

Candidate = compress.Backbone | compress.OnnxBackbone


def candidates(slim: compress.Backbone, images: str, folder: Path, threads: int) -> dict[str, tuple[Candidate, int]]:
    """Each candidate under its title, with the bytes of its file."""
    dense = compress.create_backbone(slim.spec.arch, weights="none", taps=slim.spec.taps)
    material = open_images([images])
    exported = {
        "dense, ONNX Runtime fp32": compress.export_onnx(dense, folder / "dense.onnx"),
        "dense, ONNX Runtime int8": compress.quantize(dense, material),
        "slim, ONNX Runtime fp32": compress.export_onnx(slim, folder / "slim.onnx", images=material),
        "slim, ONNX Runtime int8": compress.quantize(slim, material),
    }
    try:
        import_openvino()
        compress.save_onnx(exported["slim, ONNX Runtime int8"], folder / "slim-int8.onnx")
        exported["slim, OpenVINO int8, our file"] = compress.load_onnx(folder / "slim-int8.onnx", runtime="openvino")
        exported["slim, OpenVINO int8, NNCF"] = compress.quantize(slim, material, backend="openvino")
    except compress.CompressError as error:
        print(f"without OpenVINO: {error}")
    for backbone in exported.values():
        backbone.threads = threads
    eager = {"dense, PyTorch fp32": (dense, artifact_bytes(dense)), "slim, PyTorch fp32": (slim, artifact_bytes(slim))}
    return {**eager, **{title: (backbone, backbone.file_bytes) for title, backbone in exported.items()}}


def main(artifact: str, images: str, threads: int, rounds: int) -> None:
    torch.set_num_threads(threads)
    slim = compress.load_backbone(artifact)
    with tempfile.TemporaryDirectory() as folder:
        chosen = candidates(slim, images, Path(folder), threads)
        taken = alternating_latency([backbone for backbone, _ in chosen.values()], rounds=rounds)
    times = dict(zip(chosen, taken, strict=True))
    eager, runtime = times["dense, PyTorch fp32"].steady, times["dense, ONNX Runtime fp32"].steady
    print(f"{slim.spec.arch}, {threads} threads, {rounds} rounds, {machine.describe()}\n")
    print("| backbone | file, MB | ms | times dense PyTorch | times dense ONNX Runtime | after a pause, ms |")
    print("|---|---:|---:|---:|---:|---:|")
    for title, (_, file_bytes) in chosen.items():
        own, woken = times[title]
        ratios = f"{eager / own:.1f} | {runtime / own:.1f}"
        print(f"| {title} | {file_bytes / 1e6:.2f} | {own:.2f} | {ratios} | {woken:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact")
    parser.add_argument("--images", default="natural1k")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    main(arguments.artifact, arguments.images, arguments.threads, arguments.rounds)
