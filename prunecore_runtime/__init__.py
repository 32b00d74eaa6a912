"""Runs an exported detector: needs onnxruntime, numpy and Pillow, and nothing else of ours or of others.

```python
from prunecore_runtime import Detector
prediction = Detector("bottle.onnx").predict("part.png")
prediction.scores, prediction.defective, prediction.maps
```
"""

from prunecore_runtime.detector import Detector, Prediction
from prunecore_runtime.errors import DetectorError

__all__ = ["Detector", "DetectorError", "Prediction"]
