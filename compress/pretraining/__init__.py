"""Training a backbone from random weights by a teacher's maps, without labels."""

from compress.pretraining.hints import HintDistance
from compress.pretraining.procedure import RECIPE, pretrain

__all__ = ["RECIPE", "HintDistance", "pretrain"]
