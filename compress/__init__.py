"""Slim vision backbones: pruning, artifacts, and what they cost.

```python
import compress
net = compress.create_backbone("resnet18", weights="imagenet")
slim = compress.prune(net, ratio=0.5)
compress.save(slim, "resnet18-p50.safetensors")
```
"""

from compress.architectures import ARCHITECTURES
from compress.artifact import load_backbone, save
from compress.backbone import Backbone, create_backbone
from compress.cost import Cost, cost_of
from compress.errors import CompressError
from compress.export import OnnxBackbone, export_onnx, load_onnx, save_onnx
from compress.importance import METHODS
from compress.pruning import prune
from compress.quantization import BACKENDS, CALIBRATORS, Calibration, MaxDrop, quantize
from compress.recovery import RECOVERIES, RecoveryError, distill, finetune, recalibrate, reinitialise
from compress.training import Recipe

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
]
