"""Which patches of the training images the memory bank keeps."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Protocol

from anomaly.coreset.coreset import Coreset
from anomaly.coreset.distances import covering_radius, distances_to
from anomaly.coreset.full import full_coreset
from anomaly.coreset.greedy import greedy_coreset
from anomaly.coreset.random import random_coreset
from anomaly.coreset.request import check_bank_request, check_coverage, coreset_size
from anomaly.coreset.rows import PROJECTION, ProjectedRows, Rows, random_directions, random_projection
from anomaly.coreset.two_level import two_level_coreset
from anomaly.errors import AnomalyError
from anomaly.progress import Track


class Sample(Protocol):
    """Chooses `size` of `rows` (N, D); the docstrings of `greedy_coreset` and `two_level_coreset` tell the rest."""

    def __call__(
        self, rows: Rows, size: int, *, coverage: float | None, seed: int, memory: int | None, track: Track
    ) -> Coreset: ...


@dataclass(frozen=True)
class Sampler:
    """One way to choose.

    Attributes:
        sample: what chooses.
        summary: half a line for a list.
        covers: whether it measures the covering radius as it goes, so that it can stop at one.
        counts: whether it is asked how many to keep; else it keeps all.
    """

    sample: Sample
    summary: str
    covers: bool
    counts: bool = True


SAMPLERS = {
    "greedy": Sampler(greedy_coreset, "k-centre, exact: radius at most 2 times the smallest possible", True),
    "two_level": Sampler(two_level_coreset, "k-centre part by part: at most 4 times, in bounded memory", True),
    "random": Sampler(random_coreset, "a uniform sample: the baseline", False),
    "full": Sampler(full_coreset, "every patch: no bank is better or larger", False, counts=False),
}


def find_sampler(name: str, *, coverage: float | None = None, size: int | None = None) -> Sampler:
    """The sampler of that name.

    Raises:
        AnomalyError: there is none, or `coverage` or the `size` of a bank is given and it cannot stop there.
    """
    if name not in SAMPLERS:
        near = difflib.get_close_matches(name, SAMPLERS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(SAMPLERS)}"
        raise AnomalyError(f"no sampler {name!r}: {hint}")
    check_coverage(coverage)
    if coverage is not None and not SAMPLERS[name].covers:
        stopping = ", ".join(each for each, sampler in SAMPLERS.items() if sampler.covers)
        raise AnomalyError(f"sampler {name} knows no covering radius to stop at: drop the coverage or take {stopping}")
    if size is not None and not SAMPLERS[name].counts:
        raise AnomalyError(f"sampler {name} keeps every patch, not {size}: drop the bank size or take another sampler")
    return SAMPLERS[name]


__all__ = [
    "PROJECTION",
    "SAMPLERS",
    "Coreset",
    "ProjectedRows",
    "Rows",
    "Sample",
    "Sampler",
    "check_bank_request",
    "check_coverage",
    "coreset_size",
    "covering_radius",
    "distances_to",
    "find_sampler",
    "full_coreset",
    "greedy_coreset",
    "random_coreset",
    "random_directions",
    "random_projection",
    "two_level_coreset",
]
