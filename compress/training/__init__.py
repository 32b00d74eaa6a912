"""The one training loop, its images, its losses against a dense parent, and the checkpoints it resumes from."""

from compress.training.checkpoint import digest_of
from compress.training.loop import DivergedError, Loss, Outcome, Report, Run, find_device, train
from compress.training.recipe import Recipe
from compress.training.stage_distance import StageDistance
from compress.training.training_set import TrainingSet

__all__ = [
    "DivergedError",
    "Loss",
    "Outcome",
    "Recipe",
    "Report",
    "Run",
    "StageDistance",
    "TrainingSet",
    "digest_of",
    "find_device",
    "train",
]
