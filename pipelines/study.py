"""Studies of the detector's own options: each way evaluated on one category, accuracy beside the time of each stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import combinations

from anomaly import Category
from anomaly.patch_embedding import POOLINGS, Embedding
from anomaly.progress import Track, quiet
from compress import Backbone, CompressError, OnnxBackbone
from compress.architectures import find_architecture
from compress.errors import unknown
from pipelines.evaluate import DetectorSettings, evaluate
from pipelines.models import names_a_file, open_model
from reports.choices import STUDY_COLUMNS, Choice

Way = tuple[str, Callable[[], Backbone | OnnxBackbone], DetectorSettings]
"""Its name, what makes its backbone, and how the detector is fitted."""

_KERNELS = (3, 5)


def tap_ways(model: str, sets: Sequence[str], settings: DetectorSettings, *, weights: str) -> list[Way]:
    """One way for each set of taps such as `layer2,layer3`; by default all sets of the architecture's own taps.

    Raises:
        CompressError: `model` is an artifact, whose taps are what it was cut for.
    """
    if names_a_file(model):
        raise CompressError(f"{model} has its taps, and other maps were pruned away: study the taps of an architecture")
    own = find_architecture(model).taps
    chosen = sets or [",".join(some) for count in range(1, len(own) + 1) for some in combinations(own, count)]

    def opened(taps: str) -> Callable[[], Backbone | OnnxBackbone]:
        return lambda: open_model(model, weights=weights, taps=taps.split(","), seed=settings.seed)

    return [(taps, opened(taps), settings) for taps in chosen]


def pooling_ways(model: str, settings: DetectorSettings, *, weights: str) -> list[Way]:
    """No pooling, each pooling at 3x3 and 5x5, and averages at every second position."""
    backbone = open_model(model, weights=weights, seed=settings.seed)
    ways = {"none": Embedding(kernel=1)}
    ways |= {f"{pooling} {side}x{side}": Embedding(pooling, side) for side in _KERNELS for pooling in POOLINGS}
    ways["average 3x3, stride 2"] = Embedding(stride=2)
    return [
        (name, lambda: backbone, dataclasses.replace(settings, embedding=embedding)) for name, embedding in ways.items()
    ]


STUDIES = ("taps", "pooling")


def check_study(name: str) -> None:
    """Refuse what is no study.

    Raises:
        CompressError: see above.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES, "compress study --help tells")


def run_study(ways: Sequence[Way], category: Category, *, command: str, track: Track = quiet) -> list[Choice]:
    """Each way evaluated and timed on `category`, in turn."""
    choices = []
    for name, opened, settings in track(ways, "study", len(ways)):
        timed = dataclasses.replace(settings, timing=True)
        row, _ = evaluate(opened(), category, timed, command=command, track=track)
        values = dataclasses.asdict(row)
        choices.append(Choice(name, {column.name: values[column.name] for column in STUDY_COLUMNS}))
    return choices
