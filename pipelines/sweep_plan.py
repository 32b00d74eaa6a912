"""What a sweep runs, from options or from a TOML file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from anomaly.patch_embedding import Embedding
from anomaly.scoring import Scoring
from compress import RECOVERIES, Calibration
from compress.architectures import find_architecture
from compress.errors import CompressError, unknown
from compress.export.header import PRECISIONS
from compress.pruning import SPARSE_STEPS, Rule, find_method
from compress.quantization import check_backend
from pipelines.byte_counts import byte_count
from pipelines.evaluate import DetectorSettings
from pipelines.quantizing import Quantizing
from pipelines.slimming import NO_RECOVERY, REINIT, Images, Recovering, Slimming
from pipelines.toml_fields import read_fields

INT8 = "int8"
_LISTS = ("archs", "methods", "ratios", "recovers", "precisions", "datasets", "seeds")
_MOST = 100_000  # runs: a file of a few kB can ask for billions, which nobody waits for and no memory holds


@dataclass(frozen=True)
class SweepPlan:
    """What to run: each of archs x methods x recovers x ratios x precisions x categories x seeds.

    Ratio 0 is the dense network and is run once, whatever the methods and recoveries. `recovers` are keys of
    `RECOVERIES` or none; with `reinit+` before it a recovery trains fresh weights in the pruned structure, as a
    control. `steps` are those of each recovery that trains (None: its own), `images` folders and `labelled` one.
    `one_shot` leaves out the sparse phase of the methods that have one.

    `precisions` are fp32 and int8; int8 is calibrated on `calibration_images`, folders too, or else on the images.
    `calibration`, `percentile` and `calibration_count` are those of `compress.Calibration`, `backend` is a key of
    `compress.BACKENDS`; `keep_float` are patterns of layers that stay float, each of which every network must have.
    """

    archs: tuple[str, ...] = ("resnet18",)
    methods: tuple[str, ...] = ("magnitude",)
    ratios: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7)
    recovers: tuple[str, ...] = (NO_RECOVERY,)
    steps: int | None = None
    images: tuple[str, ...] = ()
    labelled: str | None = None
    one_shot: bool = False
    sparse_steps: int = SPARSE_STEPS
    scope: str | None = None
    precisions: tuple[str, ...] = ("fp32",)
    calibration_images: tuple[str, ...] = ()
    calibration: str = Calibration.method
    percentile: float = Calibration.percentile
    calibration_count: int = Calibration.count
    keep_float: tuple[str, ...] = ()
    backend: str = "onnxruntime"
    datasets: tuple[str, ...] = ("generated",)
    categories: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    weights: str = "auto"
    taps: tuple[str, ...] | None = None
    coreset: float = 0.01
    bank_size: int | None = None
    sampler: str = "greedy"
    coverage: float | None = None
    memory: str | None = None
    features: str | None = None
    features_dtype: str = "float32"
    index: str = "auto"
    latency_ms: float | None = None
    score: str = "max"
    neighbours: int = 9
    top: int = 10
    map_neighbours: int = 1
    pooling: str = "average"
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    width: int | None = None
    draw: str = "random"
    timing: bool = True

    def __post_init__(self) -> None:
        for name in _LISTS:
            if not getattr(self, name):
                raise CompressError(f"the sweep has no {name}: give at least one")
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))  # what is there twice runs once
        if (asked := math.prod(len(getattr(self, name)) for name in _LISTS)) > _MOST:
            raise CompressError(
                f"the sweep asks for {asked:,} runs, the limit is {_MOST:,}: split it, or shorten a list"
            )
        for method in self.methods:
            find_method(method)  # ratio 0 alone asks for none
        self.slimmings()  # refuses ratios, recoveries and scopes that there are not
        if self.steps is not None and not any(map(_trains, self.recovers)):
            raise CompressError(f"steps {self.steps}, but no recovery to spend them on: add distill, or drop them")
        if self.one_shot and not any(find_method(name).penalty for name in self.methods):
            raise CompressError("one-shot leaves out a sparse phase, and no method of the sweep has one: drop it")
        self._check_precisions()
        for arch in self.archs:
            find_architecture(arch)
        self.detector(seed=0)  # refuses a memory that is no amount, and options of the bank, embedding and scoring
        for seed in self.seeds:
            if not 0 <= seed < 2**63:
                raise CompressError(f"seed {seed} is outside 0 to 2^63 - 1")

    @classmethod
    def from_toml(cls, file: Path) -> SweepPlan:
        """The plan in a TOML file whose keys are this class's fields.

        Raises:
            CompressError: no such file, no TOML, or a key or value that means nothing.
        """
        return cls(**read_fields(file, cls))

    def slimmings(self) -> list[Slimming | None]:
        """What makes each backbone; None for the dense one, which comes first."""
        dense: list[Slimming | None] = [None] if 0 in self.ratios else []
        return dense + [
            self._slimming(method, recover, ratio)
            for method in self.methods
            for recover in self.recovers
            for ratio in sorted(self.ratios)
            if ratio != 0
        ]

    def detector(self, seed: int) -> DetectorSettings:
        """How the detector of each run is fitted."""
        return DetectorSettings(
            coreset=self.coreset,
            bank_size=self.bank_size,
            seed=seed,
            timing=self.timing,
            sampler=self.sampler,
            coverage=self.coverage,
            memory=None if self.memory is None else byte_count(self.memory),
            features=None if self.features is None else Path(self.features),
            features_dtype=self.features_dtype,
            index=self.index,
            latency_ms=self.latency_ms,
            embedding=Embedding(self.pooling, self.kernel, self.stride, self.padding, self.width, self.draw),
            scoring=Scoring(self.score, self.neighbours, self.top, self.map_neighbours),
        )

    def quantizing(self, images: Images) -> Quantizing | None:
        """How backbones are made int8, calibrated on `images`; None if no int8 is asked for."""
        if INT8 not in self.precisions or images.plain is None:
            return None
        return Quantizing(images.plain, self._calibration, self.keep_float, self.backend)

    @property
    def _calibration(self) -> Calibration:
        return Calibration(self.calibration, self.percentile, self.calibration_count)

    def _check_precisions(self) -> None:
        for name in self.precisions:
            if name not in PRECISIONS:
                raise unknown("precision", name, PRECISIONS, "give one or both")
        check_backend(self.backend, self._calibration)
        own = self._calibration != Calibration() or self.backend != "onnxruntime"
        own = own or bool(self.calibration_images or self.keep_float)
        if INT8 in self.precisions and not (self.calibration_images or self.images) and self.labelled is None:
            raise CompressError(
                "int8 is calibrated on images: name a folder of them with --images DIR or --calibration-images DIR"
            )
        if INT8 not in self.precisions and own:
            raise CompressError(
                "calibration, keep-float and backend are for int8, and the sweep is in float: add it, or drop them"
            )

    def _slimming(self, name: str, recover: str, ratio: float) -> Slimming:
        method = find_method(name)
        one_shot = self.one_shot and method.penalty is not None
        _, reinit, after = recover.rpartition(REINIT)
        return Slimming(
            method=name,
            ratio=ratio,
            rule=Rule(scope=self.scope or method.scope),
            one_shot=one_shot,
            # Steps that are not run make no other backbone.
            sparse_steps=SPARSE_STEPS if one_shot or method.penalty is None else self.sparse_steps,
            recovering=None if after == NO_RECOVERY else Recovering(after, self.steps if _trains(after) else None),
            reinit=bool(reinit),
        )


def _trains(recover: str) -> bool:
    *_, after = recover.rpartition(REINIT)
    return after in RECOVERIES and RECOVERIES[after].steps > 0
