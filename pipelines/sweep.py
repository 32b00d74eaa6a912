"""Many runs: architectures x methods x ratios x datasets x seeds, one file each, resumed where they stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly import Category, fingerprint
from anomaly.coreset import check_bank_request
from anomaly.errors import AnomalyError
from anomaly.progress import Track, quiet
from compress import Backbone, create_backbone, load_backbone, prune, save
from compress.architectures import find_architecture
from compress.errors import CompressError, unknown
from compress.pruning import check_request
from pipelines.console import note
from pipelines.data import open_categories
from pipelines.evaluate import DetectorSettings, evaluate
from pipelines.places import find_weights
from pipelines.results import is_finished, write_failure, write_result

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What makes rows of one version comparable; raise it when the same inputs give other numbers.
_PROTOCOL = 1


@dataclass(frozen=True)
class SweepPlan:
    """What to run. Ratio 0 is the dense network and is run once, whatever the methods."""

    archs: tuple[str, ...] = ("resnet18",)
    methods: tuple[str, ...] = ("magnitude",)
    ratios: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7)
    datasets: tuple[str, ...] = ("generated",)
    categories: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    weights: str = "auto"
    taps: tuple[str, ...] | None = None
    coreset: float = 0.01
    bank_size: int | None = None
    timing: bool = True

    def __post_init__(self) -> None:
        for name in ("archs", "methods", "ratios", "datasets", "seeds"):
            if not getattr(self, name):
                raise CompressError(f"the sweep has no {name}: give at least one")
        for method in self.methods:
            for ratio in self.ratios:
                check_request(ratio, method)
        for arch in self.archs:
            find_architecture(arch)
        check_bank_request(self.coreset, self.bank_size)
        for seed in self.seeds:
            if not 0 <= seed < 2**63:
                raise CompressError(f"seed {seed} is outside 0 to 2^63 - 1")

    @classmethod
    def from_toml(cls, file: Path) -> SweepPlan:
        """The plan in a TOML file whose keys are this class's fields.

        Raises:
            CompressError: no such file, no TOML, or a key or value that means nothing.
        """
        try:
            given = tomllib.loads(file.read_text())
        except OSError as error:
            raise CompressError(f"cannot read {file}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CompressError(f"{file} is no TOML: {error}") from error
        return cls(**{key: _value(file, key, value) for key, value in given.items()})

    def slimmings(self) -> list[tuple[str, float]]:
        """(method, ratio) of each backbone, the dense one first."""
        dense = [("none", 0.0)] if 0 in self.ratios else []
        return dense + [(method, ratio) for method in self.methods for ratio in sorted({*self.ratios} - {0.0})]


@dataclass(frozen=True)
class SweepOutcome:
    """Counts of runs by how they ended: run now, found finished, failed."""

    run: int
    kept: int
    failed: int


def sweep(plan: SweepPlan, folder: Path, *, command: str, track: Track = quiet) -> SweepOutcome:
    """Run `plan` into `folder`: per run a row and pictures, per backbone an artifact in `folder`/backbones.

    A run whose result is there, made from the same inputs, is kept. A run that is refused is recorded
    with its reason and the rest goes on. Killed, a sweep loses the run in progress.

    Raises:
        CompressError, AnomalyError: the folder, a dataset or the weights are not to be had, before any run.
    """
    categories = open_categories(plan.datasets, plan.categories, track=track)
    prints = {(category.dataset, category.name): fingerprint(category) for category in categories}
    parents = {(arch, seed): _parent(plan, arch, seed) for arch in plan.archs for seed in plan.seeds}
    try:
        (folder / "backbones").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompressError(f"cannot write results to {folder}: {error.strerror}") from error
    runs = list(_runs(plan, categories))
    run = kept = failed = 0
    for arch, seed, method, ratio, category in track(runs, "sweep", len(runs)):
        parent = parents[arch, seed]
        name = _slug(arch, method, ratio, category, seed)
        settings = DetectorSettings(plan.coreset, plan.bank_size, seed, plan.timing)
        data = prints[category.dataset, category.name]
        key = _key(parent, method, ratio, settings, data)
        if is_finished(folder, name, key):
            kept += 1
            continue
        try:
            backbone = _slim(parent, method, ratio, seed, folder / "backbones")
            row, examples = evaluate(backbone, category, settings, command=command, data_fingerprint=data, track=track)
        except (CompressError, AnomalyError) as error:
            write_failure(folder, name, str(error))
            note(f"failed: {name}: {error}")
            failed += 1
            continue
        write_result(folder, name, row, examples, key)
        note(f"{name}: image AUROC {row.image_auroc:.3f}" if row.image_auroc is not None else name)
        run += 1
    return SweepOutcome(run, kept, failed)


def _runs(plan: SweepPlan, categories: list[Category]) -> Iterator[tuple[str, int, str, float, Category]]:
    for arch in plan.archs:
        for seed in plan.seeds:
            for method, ratio in plan.slimmings():
                for category in categories:
                    yield arch, seed, method, ratio, category


def _parent(plan: SweepPlan, arch: str, seed: int) -> Backbone:
    parent = create_backbone(arch, weights=find_weights(arch, plan.weights), taps=plan.taps, seed=seed)
    note(f"{arch}: weights {parent.spec.weights.source}, taps {', '.join(parent.spec.taps)}")
    return parent


def _slim(parent: Backbone, method: str, ratio: float, seed: int, folder: Path) -> Backbone:
    """The backbone of a run, out of `folder` if it was made there from the same parent."""
    file = folder / f"{_backbone_slug(parent.spec.arch, method, ratio, seed)}.safetensors"
    if file.is_file():
        try:
            made = load_backbone(file)
        except CompressError:
            made = None  # damaged: make it again
        if made is not None and _is_made_of(made, parent, method, ratio, seed):
            return made
    backbone = parent if method == "none" else prune(parent, ratio=ratio, method=method, seed=seed)
    save(backbone, file)
    return backbone


def _is_made_of(made: Backbone, parent: Backbone, method: str, ratio: float, seed: int) -> bool:
    pruning = made.spec.pruning
    how = ("none", 0.0, seed) if pruning is None else (pruning.method, pruning.ratio, pruning.seed)
    same_parent = (made.spec.arch, made.spec.weights, made.spec.taps) == (
        parent.spec.arch,
        parent.spec.weights,
        parent.spec.taps,
    )
    return same_parent and how == (method, ratio, seed)


def _key(parent: Backbone, method: str, ratio: float, settings: DetectorSettings, data: str) -> str:
    """What a row was made from, as one hash: equal inputs, equal key."""
    spec = parent.spec
    inputs = [_PROTOCOL, spec.arch, spec.taps, dataclasses.asdict(spec.weights), method, ratio]
    described = json.dumps([*inputs, dataclasses.asdict(settings), data], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _slug(arch: str, method: str, ratio: float, category: Category, seed: int) -> str:
    # Folder names come from outside: only plain characters reach a file name.
    name = f"{category.dataset}-{category.name}"
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    if plain != name:  # names that differ only in other characters must not share a file
        plain += f"-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return f"{_backbone_slug(arch, method, ratio, seed)}-{plain}"


def _backbone_slug(arch: str, method: str, ratio: float, seed: int) -> str:
    slimming = "dense" if method == "none" else f"{method}-{ratio:g}"
    return f"{arch}-{slimming}-s{seed}"


def _value(file: Path, key: str, value: Any) -> Any:
    fields: Mapping[str, Any] = {field.name: field for field in dataclasses.fields(SweepPlan)}
    if key not in fields:
        raise unknown("key", key, fields, f"in {file}")
    default = fields[key].default
    if isinstance(default, tuple) or key == "taps":
        items = value if isinstance(value, list) else [value]
        kind = type(default[0]) if default else str
        if not all(isinstance(item, kind) or (kind is float and isinstance(item, int)) for item in items):
            raise CompressError(f"{file}: {key} = {value!r}: a list of {kind.__name__} is needed")
        return tuple(kind(item) for item in items)
    if key == "bank_size":
        wanted: tuple[type, ...] = (int,)
    else:
        wanted = (float, int) if isinstance(default, float) else (type(default),)
    if not isinstance(value, wanted):
        raise CompressError(f"{file}: {key} = {value!r}: {wanted[0].__name__} is needed")
    return value
