"""Runs an exported detector: needs onnxruntime, numpy and Pillow, and nothing else of ours or of others.

```python
from prunecore_runtime import Detector
prediction = Detector("bottle.onnx").predict("part.png")
prediction.scores, prediction.defective, prediction.maps
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from prunecore_runtime.errors import DetectorError

if TYPE_CHECKING:
    from prunecore_runtime.detector import Detector, Prediction

__all__ = ["Detector", "DetectorError", "Prediction"]


def __getattr__(name: str) -> Any:
    """The detector, imported when it is first asked for: the files beside it need no onnxruntime."""
    if name in ("Detector", "Prediction"):
        return getattr(importlib.import_module("prunecore_runtime.detector"), name)
    raise AttributeError(f"module 'prunecore_runtime' has no attribute {name!r}")
