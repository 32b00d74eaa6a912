"""PatchCore on any backbone that returns a list of feature maps: datasets, detector, metrics.

```python
import anomaly
detector = anomaly.PatchCore(net, mean=net.mean, std=net.std).fit(category.train)
prediction = detector.predict(batch)
```
"""

from anomaly.datasets import DATASETS, LAYOUTS, fingerprint, open_dataset
from anomaly.errors import AnomalyError
from anomaly.images import load_batches
from anomaly.metrics import Metrics, aupro, auroc, evaluate_scores, f1_max
from anomaly.patch_embedding import Embedding
from anomaly.patchcore import PatchCore, Prediction
from anomaly.samples import Category, Sample
from anomaly.scoring import Scoring

__all__ = [
    "DATASETS",
    "LAYOUTS",
    "AnomalyError",
    "Category",
    "Embedding",
    "Metrics",
    "PatchCore",
    "Prediction",
    "Sample",
    "Scoring",
    "aupro",
    "auroc",
    "evaluate_scores",
    "f1_max",
    "fingerprint",
    "load_batches",
    "open_dataset",
]
