"""A detector as one ONNX graph, from pixels to scores and maps."""

from anomaly.export.assembly import detector_graph
from anomaly.export.search import BankPrecision

__all__ = ["BankPrecision", "detector_graph"]
