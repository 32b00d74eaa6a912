"""The main job on the embedded default: generated surfaces, and weights out of a Python package."""

from __future__ import annotations

from pipelines.sweep_plan import SweepPlan

DEMO = SweepPlan(
    archs=("efficientnet_lite0",),
    methods=("magnitude",),
    ratios=(0.0, 0.3, 0.5, 0.7),
    datasets=("generated",),
    weights="offline",
)
