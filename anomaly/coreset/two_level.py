"""Greedy k-centre of more rows than memory holds: of each part, then of the parts' centres.

Malkomes et al. 2015 ("Fast distributed k-center clustering with outliers on massive data", section 3) for one machine
after the other: the covering radius is at most 4 times the smallest possible, where one greedy has 2.
Each row lies within its part's radius of a centre of its part, and that one within the second radius of a centre that
is kept: the sum of both is a bound that is known afterwards, and is what comes back.
"""

from __future__ import annotations

import torch

from anomaly.coreset.coreset import Coreset
from anomaly.coreset.greedy import greedy_coreset
from anomaly.coreset.request import check_coverage, check_size
from anomaly.coreset.rows import Rows, working_bytes
from anomaly.errors import AnomalyError
from anomaly.progress import Track, quiet

_PART = 1 << 20  # rows, where no memory is stated


def two_level_coreset(
    rows: Rows,
    size: int,
    *,
    coverage: float | None = None,
    seed: int = 0,
    memory: int | None = None,
    track: Track = quiet,
) -> Coreset:
    """Rows that cover all rows with a radius at most four times the smallest possible; each row is read once.

    Args:
        rows: (N, D) float32, a tensor or what is read from a file.
        size: how many rows, in [1, N].
        coverage: stop before that once the bound on the radius is at most this, at least 0.
        memory: bytes that may be used; they decide how many parts there are. None: parts of a million rows.

    Raises:
        AnomalyError: size outside [1, N], a negative coverage, too little memory, or features that are not finite.
    """
    check_size(size, len(rows))
    check_coverage(coverage)
    parts = parts_within(rows, size, memory)
    if parts == 1:
        return greedy_coreset(rows, size, coverage=coverage, seed=seed, track=track)
    edges = [round(len(rows) * part / parts) for part in range(parts + 1)]
    indices, centres, first_radius = [], [], 0.0
    for part in track(range(parts), "coreset, parts", parts):
        start, stop = edges[part], edges[part + 1]
        stretch = rows[start:stop]
        chosen = greedy_coreset(stretch, min(size, stop - start), seed=seed + part, track=track)
        indices.append(chosen.indices + start)
        centres.append(stretch[chosen.indices])
        first_radius = max(first_radius, chosen.radius)
        del stretch  # before the next one is read
    left = None if coverage is None else max(coverage - first_radius, 0.0)
    chosen = greedy_coreset(torch.cat(centres), size, coverage=left, seed=seed, track=track)
    return Coreset(torch.cat(indices)[chosen.indices], first_radius + chosen.radius)


def parts_within(rows: Rows, size: int, memory: int | None) -> int:
    """The smallest number of parts whose work, and the centres of all of them, fit into `memory` bytes.

    Raises:
        AnomalyError: no number does.
    """
    if memory is None:
        return -(-len(rows) // max(_PART, 2 * size))
    per_row = working_bytes(rows) // len(rows)
    centre = 4 * rows.shape[1] * size
    needed = []
    for parts in range(1, max(len(rows) // size, 1) + 1):
        part = -(-len(rows) // parts) * per_row
        union = parts * size * per_row
        # The centres of the parts lie beside the last part, and are copied into one block for the second level.
        needed.append(max(part + parts * centre, union + parts * centre) + centre)
        if needed[-1] <= memory:
            return parts
    raise AnomalyError(
        f"two_level needs {min(needed) / 2**20:,.1f} MiB for {size} of {len(rows)} patches, and "
        f"{memory / 2**20:,.1f} MiB of the memory are left for it: raise it or lower the bank size"
    )
