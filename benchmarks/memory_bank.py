"""How fast and how small a memory bank can be searched, and what that costs: the numbers of docs/memory_bank.md.

    PRUNECORE_DATA=FOLDER python -m benchmarks.memory_bank [--threads 2] [--timed 24] [--dataset magnetic_tile]

ResNet-18's patches of all training images, a 10 % coreset (59,662 x 384 on magnetic tile). FAISS's flat index is
measured against the exact search and the other kinds, in turn on each of `timed` images; recall and AUROC are those of
the whole test split. The last lines say whether the goals are met: exact 2.5 times as fast with the same neighbours, an
index 12 times as fast with at most 0.003 image AUROC lost, and one of 1/12 of the bytes with at most 0.005 lost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from pipelines import machine
from pipelines.console import ProgressBars, note, print_line, print_text_table
from pipelines.data import open_categories
from pipelines.evaluate import DetectorSettings
from pipelines.index_report import FLAT, index_report
from pipelines.models import open_model
from reports.choices import INDEX_COLUMNS, Choice, choices_table

INDEXES = (FLAT, "exact", "ivf", "hnsw", "sq8", "fp16", "ivf_pq", "pca", "pca_ivf")


Measure = Callable[[Choice], float]


def goal(told: str, choices: Sequence[Choice], gain: Measure, least: float, lost: Measure, most: float) -> bool:
    """Print the choice that gains most among those that lose at most `most`; returns whether it gains enough."""
    allowed = [choice for choice in choices if lost(choice) <= most]
    best = max(allowed, key=gain, default=None)
    met = best is not None and gain(best) >= least
    found = f"{best.name} {gain(best):.1f}x, lost {lost(best):+.4f}" if best else "none"
    print_line(f"{'met' if met else 'MISSED'}: {told}, at least {least:g}x: {found}")
    return met


def main(threads: int, timed: int, dataset: str) -> int:
    torch.set_num_threads(threads)
    backbone = open_model("resnet18")
    with ProgressBars() as bars:
        category = open_categories([dataset], (), track=bars.track)[0]
        note(f"{machine.describe()}, {threads} threads, {backbone.spec.weights.source}")
        settings = DetectorSettings(coreset=0.1)
        choices = index_report(backbone, category, settings, INDEXES, timed=timed, track=bars.track)
    print_text_table(choices_table(choices, INDEX_COLUMNS, head="index"))
    by_name = {choice.name: choice for choice in choices}
    flat, exact = by_name[FLAT], by_name["exact"]

    def of(choice: Choice, name: str) -> float:
        return float(choice.values[name] or 0)

    def faster(choice: Choice) -> float:
        return of(flat, "ms_search") / of(choice, "ms_search")

    def smaller(choice: Choice) -> float:
        return of(flat, "bank_bytes") / of(choice, "bank_bytes")

    def lost(choice: Choice) -> float:
        return of(flat, "image_auroc") - of(choice, "image_auroc")

    def neighbours_lost(choice: Choice) -> float:
        return 1 - of(flat, "recall")  # recall is against the exact search

    met = [
        goal("exact, faster than FAISS flat with the same neighbours", [exact], faster, 2.5, neighbours_lost, 1e-4),
        goal("an index faster than FAISS flat", choices, faster, 12, lost, 0.003),
        goal("an index smaller than FAISS flat", choices, smaller, 12, lost, 0.005),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--timed", type=int, default=24)
    parser.add_argument("--dataset", default="magnetic_tile")
    arguments = parser.parse_args()
    sys.exit(main(arguments.threads, arguments.timed, arguments.dataset))
