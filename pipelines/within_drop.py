"""The largest ratio whose detection stays within a limit: slimming and a validation split under one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from anomaly import Category
from anomaly.progress import Track, quiet
from compress import Backbone
from compress.errors import CompressError
from compress.pruning import Ranking, channel_groups
from compress.training import Report
from pipelines.drop_search import DropError, DropSearch, check_drop, largest_ratio_within_drop
from pipelines.evaluate import DetectorSettings
from pipelines.slimming import Images, Slimming, kept_for_later, state_file
from pipelines.validation import validation_auroc, validation_split

NEAR_CHANCE = 0.6  # below it a detector guesses, and any ratio is "within" a drop


def slim_within_drop(
    slimming: Slimming,
    backbone: Backbone,
    teacher: Backbone,
    images: Images,
    categories: Sequence[Category],
    drop: float,
    *,
    seed: int = 0,
    keep: Path | None = None,
    track: Track = quiet,
    report: Report | None = None,
) -> DropSearch[Backbone]:
    """The largest ratio at which `slimming` loses at most `drop` of image AUROC, the mean over the categories.

    Judged on a validation split of each category's training images with painted defects; test images are not
    opened. Each of up to ten ratios is cut and recovered in full, which is what takes the time; where the method allows
    it, they share one ranking of the channels or one sparse phase.

    Args:
        slimming, backbone, teacher, images: see `Slimming.slim`; the slimming's own ratio does not count.
        keep: see `state_file`; each ratio has states of its own, but for a sparse phase that serves all. Without it,
            each runs its own. They stay if no ratio is found, for a search with a larger drop.

    Raises:
        DropError: no ratio stays within the drop; the message tells how to clear the states that are kept.
        CompressError: a drop outside [0, 1), or a `backbone` that detects nothing.
    """
    check_drop(drop)
    channel_groups(backbone, slimming.rule)  # a network or a rule that cannot be pruned is refused before the long work
    splits = [validation_split(category, seed=seed) for category in categories]
    settings = DetectorSettings(seed=seed)

    def score(network: Backbone) -> float:
        return fmean(validation_auroc(network, split, settings, track=track).image for split in splits)

    dense = score(backbone)
    if dense < NEAR_CHANCE:
        raise CompressError(
            f"this {backbone.spec.arch} has an AUROC of {dense:.3f} on the validation split before any cut, and below "
            f"{NEAR_CHANCE} a drop means nothing: give pretrained weights"
        )
    phase = state_file(keep, "sparse") if slimming.shares_phase else None
    ranking: Ranking | None = None

    def cut(ratio: float) -> Backbone:
        nonlocal ranking
        place = None if keep is None else keep.with_name(f"{keep.name}.{ratio:g}")
        here = replace(slimming, ratio=ratio)
        ranking = ranking or here.ranking(backbone, images, seed=seed, track=track)
        return here.slim(
            backbone, teacher, images, ranking=ranking, seed=seed, keep=place, phase=phase, track=track, report=report
        )

    try:
        return largest_ratio_within_drop(cut, score, dense=dense, drop=drop)
    except DropError as error:
        raise DropError(f"{error}{kept_for_later(keep)}") from error


def told(search: DropSearch[Backbone]) -> list[list[str]]:
    """The trials as rows of (ratio, validation AUROC), the dense network first."""
    tried = sorted(search.trials, key=lambda trial: trial.ratio)
    rows = [[f"{each.ratio:g}", each.refusal if each.score is None else f"{each.score:.4f}"] for each in tried]
    return [["0", f"{search.dense:.4f}"], *rows]
