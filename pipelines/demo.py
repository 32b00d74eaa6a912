"""The main job on the embedded default: generated surfaces, and the weights that ship with the package."""

from __future__ import annotations

from dataclasses import replace

from pipelines.sweep_plan import SweepPlan

STEPS = 240  # of recovery, each: enough to be seen; the whole demo within five minutes on two cores with bfloat16

# Two sweeps into one folder: the small network is cut at one ratio only, and its first blocks, where int8 hurts, stay
# float, which is 12 kB (docs/quantization.md, "Depthwise networks").
_RESNET = SweepPlan(
    archs=("resnet18",),
    methods=("lcp",),
    ratios=(0.0, 0.3, 0.5, 0.7),
    recovers=("distill",),
    steps=STEPS,
    images=("generated", "scenes"),
    calibration_images=("generated",),
    precisions=("fp32", "int8"),
    datasets=("generated",),
    weights="bundled",
)
_MOBILENET = replace(
    _RESNET,
    archs=("mobilenet_v3_small",),
    ratios=(0.0, 0.5),
    keep_float=("features.0", "features.1", "features.2", "features.3"),
)
DEMO = (_RESNET, _MOBILENET)
