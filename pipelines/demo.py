"""The main job on the embedded default: generated surfaces, and the weights that ship with the package."""

from __future__ import annotations

from dataclasses import replace

from pipelines.sweep_plan import SweepPlan

# Three sweeps into one folder, within five minutes on two cores without bfloat16. That is why the cut is a mild one and
# its recovery short, and why the dense networks stay float.
STEPS = 100

_DENSE = SweepPlan(
    archs=("resnet18", "mobilenet_v3_small"),
    ratios=(0.0,),
    datasets=("generated",),
    categories=("brushed_metal", "printed_grid"),
    weights="bundled",
)
_RESNET = replace(
    _DENSE,
    archs=("resnet18",),
    methods=("lcp",),
    ratios=(0.3,),
    recovers=("distill",),
    steps=STEPS,
    images=("generated", "scenes"),
    calibration_images=("generated",),
    precisions=("fp32", "int8"),
)
_MOBILENET = replace(
    _RESNET,
    archs=("mobilenet_v3_small",),
    # The first blocks, where int8 hurts: 12 kB (docs/quantization.md, "Depthwise networks").
    keep_float=("features.0", "features.1", "features.2", "features.3"),
)
DEMO = (_DENSE, _RESNET, _MOBILENET)
