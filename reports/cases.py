"""Which test images tell most about a detector: found at best, typically, at worst, and the falsest alarm."""

from __future__ import annotations

import numpy as np

from reports.scores import Floats, Labels

BEST, TYPICAL, WORST, ALARM = "best case", "typical case", "worst case", "false alarm"


def cases(labels: Labels, scores: Floats) -> dict[str, int]:
    """The places of the defective images of the highest, the median and the lowest score, and of the good image of the
    highest; what there are too few images for is missing.

    >>> cases(np.array([False, True, True, True, False]), np.array([0.1, 0.9, 0.3, 0.5, 0.4]))
    {'best case': 1, 'typical case': 3, 'worst case': 2, 'false alarm': 4}
    """
    order = np.argsort(scores, kind="stable")
    defective, good = order[labels[order]], order[~labels[order]]
    found: dict[str, int] = {}
    if len(defective):
        found |= {
            BEST: int(defective[-1]),
            TYPICAL: int(defective[(len(defective) - 1) // 2]),
            WORST: int(defective[0]),
        }
    if len(good):
        found[ALARM] = int(good[-1])
    return found
