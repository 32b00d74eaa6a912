"""Post-training quantization to int8: static, calibrated on a stream of images, mixed with float where it must be."""

from compress.quantization.calibrators import CALIBRATORS, Calibration
from compress.quantization.procedure import BACKENDS, MaxDrop, check_backend, check_images, quantize

__all__ = ["BACKENDS", "CALIBRATORS", "Calibration", "MaxDrop", "check_backend", "check_images", "quantize"]
