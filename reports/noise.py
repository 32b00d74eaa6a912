"""What a difference between two settings has to exceed, to be more than chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import variance

import numpy as np
from scipy.stats import t as student

from reports.groups import Group
from reports.runs import Run
from reports.scores import Floats, Labels
from reports.significance import CONFIDENCE, AurocDifference, Paired, paired_difference

RESAMPLES = 1000  # for each setting of a report


def image_difference(
    first: Group, second: Group, *, resamples: int = RESAMPLES, seed: int = 0
) -> AurocDifference | None:
    """The bootstrapped difference of their image AUROC over the categories of both.

    None unless every run of each of these categories has scores of the same images: a difference over fewer categories
    is not the one that the tables tell. The images are what is paired: the two need not have the same seeds.
    """
    pairs = []
    for category in sorted(set(first.categories) & set(second.categories)):
        pair = paired(first.part(category).runs, second.part(category).runs)
        if pair is None:
            return None
        pairs.append(pair)
    return paired_difference(pairs, resamples=resamples, seed=seed) if pairs else None


@dataclass(frozen=True)
class Deviation:
    """The standard deviation between seeds, pooled, and how many degrees of freedom it is known with."""

    value: float
    freedom: int


def pooled_deviation(groups: Iterable[Group], name: str) -> Deviation | None:
    """The deviation of the metric `name` between the seeds of all groups; None where nothing ran with two seeds.

    It is pooled because that of the two seeds of one group is hardly known.
    """
    repeated = [values for group in groups if len(values := group.by_seed(name)) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    if not freedom:
        return None
    return Deviation(sqrt(sum((len(values) - 1) * variance(values) for values in repeated) / freedom), freedom)


def seed_noise(first: Group, second: Group, name: str, deviation: Deviation) -> float | None:
    """Half of the 95 % interval (Student's t) of the difference of two means over seeds; None where one has none."""
    counts = [len(group.by_seed(name)) for group in (first, second)]
    if not all(counts):
        return None
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, deviation.freedom))
    return quantile * deviation.value * sqrt(sum(1 / count for count in counts))


def paired(first: Sequence[Run], second: Sequence[Run]) -> Paired | None:
    """The scores of the images of one category side by side; None where a run lacks them, or saw other images."""
    ordered = [_by_name(run) for run in (*first, *second)]
    known = [each for each in ordered if each]
    if not first or not second or len(known) < len(ordered):
        return None
    names, labels, _ = known[0]
    if any(other[0] != names or not np.array_equal(other[1], labels) for other in known):
        return None
    rows = np.stack([scores for _, _, scores in known]).astype(np.float64)
    return Paired(labels, rows[: len(first)], rows[len(first) :])


def _by_name(run: Run) -> tuple[list[str], Labels, Floats] | None:
    if run.scores is None or not run.scores.two_sided:
        return None
    order = sorted(range(len(run.scores.names)), key=run.scores.names.__getitem__)
    return [run.scores.names[place] for place in order], run.scores.labels[order], run.scores.scores[order]
