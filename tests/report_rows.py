"""Runs to report on: an origin, a network slimmed by half, and what a detector saw."""

from __future__ import annotations

from typing import Any

import numpy as np

from reports import Examples, Run

ORIGIN: dict[str, Any] = {
    "arch": "resnet18",
    "method": "none",
    "ratio": 0.0,
    "scope": "none",
    "recover": "none",
    "precision": "fp32",
    "dataset": "tiles",
    "category": "a",
    "seed": 0,
    "params_full": 11_689_512,
    "params_used": 2_782_784,
    "macs_full": 1_824_033_792,
    "macs_used": 1_400_000_000,
    "file_bytes": 11_200_000,
    "bank_size": 1568,
    "image_auroc": 0.95,
    "image_f1": 0.9,
    "pixel_auroc": 0.8,
    "pixel_f1": 0.4,
    "aupro": 0.6,
    "ms_features": 17.7,
    "ms_embedding": 1.0,
    "ms_search": 3.0,
    "ms_scoring": 0.5,
    "ms_total": 24.0,
    "peak_rss_bytes": 812_000_000,
    "command": "compress evaluate resnet18 --dataset tiles",
    "versions": {"torch": "2.15.0"},
    "machine": "a machine",
    "threads": 2,
    "data_fingerprint": "sha256:ab",
    "weights_source": "imagenet",
    "weights_fingerprint": None,
}

HALF = {
    "method": "magnitude",
    "ratio": 0.5,
    "scope": "local",
    "params_full": 3_056_000,
    "params_used": 727_000,
    "macs_used": 368_000_000,
    "file_bytes": 2_900_000,
    "ms_total": 12.0,
}


def run(examples: Examples | None = None, **changes: Any) -> Run:
    return Run(ORIGIN | changes, examples)


def half(**changes: Any) -> Run:
    return run(**(HALF | {"image_auroc": 0.94, "pixel_auroc": 0.79} | changes))


def example_images(k: int = 2, *, masks: bool = True, names: list[str] | None = None) -> Examples:
    rng = np.random.default_rng(0)
    truth = np.zeros((k, 48, 64), bool)
    truth[0, 10:20, 10:20] = True
    maps = rng.random((k, 48, 64)).astype(np.float32)
    images = rng.integers(0, 255, (k, 48, 64, 3)).astype(np.uint8)
    listed = names or [f"crack/{i}.png" for i in range(k)]
    return Examples(listed, ["crack"] * k, images, truth if masks else None, maps, maps.max((1, 2)), 0.0, 1.0)


def tangle(methods: tuple[str, ...] = ("magnitude", "lcp", "batch_norm")) -> list[Run]:
    """Each method after each treatment at two ratios: more lines than a panel bears."""
    treatments = [("none", "fp32"), ("distill", "int8"), ("distill", "fp32")]
    slim = [
        half(method=method, ratio=ratio, recover=recover, precision=precision, image_auroc=0.9 - ratio / 9)
        for method in methods
        for recover, precision in treatments
        for ratio in (0.3, 0.5)
    ]
    return [run(), run(precision="int8", image_auroc=0.94), *slim]
