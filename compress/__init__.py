"""Slim vision backbones: pruning, artifacts, and what they cost.

```python
import compress
net = compress.create_backbone("resnet18", weights="imagenet")
slim = compress.prune(net, ratio=0.5)
compress.save(slim, "resnet18-p50.safetensors")
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from compress.architectures import ARCHITECTURES
from compress.artifact import load_backbone, save
from compress.backbone import Backbone, create_backbone
from compress.errors import CompressError

if TYPE_CHECKING:
    from compress.classifier import as_classifier
    from compress.cost import Cost, cost_of
    from compress.export import OnnxBackbone, export_onnx, load_onnx, save_onnx
    from compress.importance import METHODS
    from compress.pruning import prune
    from compress.quantization import BACKENDS, CALIBRATORS, Calibration, MaxDrop, quantize
    from compress.recovery import (
        RECOVERIES,
        RecoveryError,
        distill,
        finetune,
        recalibrate,
        reinitialise,
        train_classifier,
    )
    from compress.third_party import as_backbone
    from compress.training import Recipe

# A program that only loads a backbone has no use for Torch-Pruning, ONNX and fvcore, nor two seconds for them.
_LATE = {
    "classifier": ("as_classifier",),
    "cost": ("Cost", "cost_of"),
    "export": ("OnnxBackbone", "export_onnx", "load_onnx", "save_onnx"),
    "importance": ("METHODS",),
    "pruning": ("prune",),
    "quantization": ("BACKENDS", "CALIBRATORS", "Calibration", "MaxDrop", "quantize"),
    "recovery": (
        "RECOVERIES",
        "RecoveryError",
        "distill",
        "finetune",
        "recalibrate",
        "reinitialise",
        "train_classifier",
    ),
    "third_party": ("as_backbone",),
    "training": ("Recipe",),
}

__all__ = [
    "ARCHITECTURES",
    "BACKENDS",
    "CALIBRATORS",
    "METHODS",
    "RECOVERIES",
    "Backbone",
    "Calibration",
    "CompressError",
    "Cost",
    "MaxDrop",
    "OnnxBackbone",
    "Recipe",
    "RecoveryError",
    "as_backbone",
    "as_classifier",
    "cost_of",
    "create_backbone",
    "distill",
    "export_onnx",
    "finetune",
    "load_backbone",
    "load_onnx",
    "prune",
    "quantize",
    "recalibrate",
    "reinitialise",
    "save",
    "save_onnx",
    "train_classifier",
]


def __getattr__(name: str) -> Any:
    """The late verbs and the packages that they come from, imported when they are first asked for."""
    if name in _LATE:
        return importlib.import_module(f"compress.{name}")
    for package, names in _LATE.items():
        if name in names:
            globals()[name] = found = getattr(importlib.import_module(f"compress.{package}"), name)
            return found
    raise AttributeError(f"module 'compress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
