"""How long a backbone takes for one image, on this machine, now."""

from __future__ import annotations

import time
from statistics import median

import torch

from compress.backbone import Backbone, in_float32
from compress.errors import CompressError
from compress.networks.evaluating import evaluating


def measure_latency(backbone: Backbone, *, images: int = 1, repeats: int = 30, warm_up: int = 5) -> float:
    """Median milliseconds of one forward pass to the last tap, in evaluation mode and float32.

    Runs where the weights lie, on as many threads as torch has now.

    Args:
        images: size of the batch, each image spec.size pixels square.
        repeats: passes that are timed.
        warm_up: passes before them, which are not.

    Raises:
        CompressError: `images` or `repeats` below 1.
    """
    if images < 1 or repeats < 1:
        raise CompressError(f"{repeats} repeats of {images} images measure nothing: both must be 1 at least")
    backbone = in_float32(backbone)
    device = next(backbone.parameters()).device
    batch = torch.zeros(images, 3, backbone.spec.size, backbone.spec.size, device=device)
    times = []
    with evaluating(backbone), torch.inference_mode():
        for _ in range(warm_up + repeats):
            start = time.perf_counter()
            backbone(batch)
            if device.type == "cuda":  # which works on while the call has already returned
                torch.cuda.synchronize(device)
            times.append((time.perf_counter() - start) * 1000)
    return median(times[warm_up:])
