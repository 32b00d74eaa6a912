"""Pretrained weights: where they come from, one file for each source, and whether they fit."""

from compress.weights.fetched import Fetched, WeightsOrigin, fit_to
from compress.weights.sources import fetch_weights, weights_of

__all__ = ["Fetched", "WeightsOrigin", "fetch_weights", "fit_to", "weights_of"]
