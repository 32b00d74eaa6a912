"""A dataset made from a seed: four kinds of surface, seven kinds of defect, exact masks, nothing to download."""

from anomaly.datasets.generated.defects import DEFECTS
from anomaly.datasets.generated.reading import read_generated
from anomaly.datasets.generated.surfaces import SURFACES
from anomaly.datasets.generated.writing import VERSION, generate

__all__ = ["DEFECTS", "SURFACES", "VERSION", "generate", "read_generated"]
