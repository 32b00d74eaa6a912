"""The backbones of a sweep: each made once, kept as a file, and made again only when its inputs change.

Several processes may share a folder: whoever makes a file holds its lock, and the others wait and then load it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from anomaly.progress import Track, quiet
from compress import Backbone, OnnxBackbone, load_backbone, load_onnx, save, save_onnx
from compress.errors import CompressError
from compress.files import atomic_write
from compress.pruning import Ranking
from compress.training import Report
from pipelines.locks import trying
from pipelines.quantizing import Quantizing
from pipelines.slimming import Images, Slimming, forget, keeping_last_good, state_file

# Raise it when the same inputs give another backbone, because training or a criterion changed.
_PROTOCOL = 4
B = TypeVar("B", Backbone, OnnxBackbone)


@dataclass(frozen=True)
class Request:
    """What a backbone is made from.

    Attributes:
        slimming: how `parent` is slimmed with `images` and `seed`; None for the dense one.
        quantizing: how what comes of it is made int8; None leaves it float.
    """

    parent: Backbone
    slimming: Slimming | None
    images: Images
    seed: int
    quantizing: Quantizing | None = None

    @property
    def name(self) -> str:
        """The name of its files."""
        slimming = self.slimming.name if self.slimming else "dense"
        return f"{self.parent.spec.arch}-{slimming}{'-int8' if self.quantizing else ''}-s{self.seed}"

    @property
    def kind(self) -> str:
        """What takes about as long to make: the name without ratio and seed, with the steps of the trainings."""
        slimming = self.slimming.kind if self.slimming else "dense"
        return f"{self.parent.spec.arch}-{slimming}{'-int8' if self.quantizing else ''}"

    @property
    def key(self) -> str:
        """All inputs as one hash: equal inputs, equal key."""
        spec = self.parent.spec
        weights = dataclasses.asdict(spec.weights)
        inputs = [_PROTOCOL, spec.arch, spec.taps, weights, self.images.fingerprints, self.seed]
        how = [self.slimming.asked(self.seed) if self.slimming else None]
        how += [self.quantizing.asked()] if self.quantizing else []
        return hashlib.sha256(json.dumps([*inputs, *how], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Made:
    """A backbone that was made, and how long that took, without those that were made for it first."""

    name: str
    kind: str
    seconds: float


@dataclass(frozen=True)
class _Form(Generic[B]):
    """How a kind of backbone is kept."""

    suffix: str
    load: Callable[[Path], B]
    save: Callable[[B, Path], None]


_FLOAT = _Form(".safetensors", load_backbone, save)
_INT8 = _Form(".onnx", load_onnx, save_onnx)
_PHASE = ".phase.state"  # ends the names of states of sparse phases that several cuts share


class BackboneStore:
    """Artifacts and int8 models in `folder`, each with a `.key` beside it that tells what it was made from."""

    def __init__(self, folder: Path, *, track: Track = quiet, report: Report | None = None) -> None:
        self._folder, self._track, self._report = folder, track, report
        self._refused: dict[str, CompressError] = {}
        self._made: list[Made] = []
        self._ranked: tuple[str, Ranking | None] = ("", None)  # the last ranking, and what it was made from

    def get(self, request: Request) -> Backbone | OnnxBackbone:
        """The backbone, out of the folder if it was made there from the same inputs.

        Raises:
            CompressError: it cannot be made, see `Slimming.slim` and `compress.quantize`, or not be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CompressError(f"cannot write results to {self._folder}: {error.strerror}") from error
        quantizing = request.quantizing
        if quantizing is None:
            return self._float(request)
        plain = replace(request, quantizing=None)
        return self._kept(request, _INT8, lambda _: quantizing.quantize(self._float(plain), track=self._track))

    def take_made(self) -> tuple[Made, ...]:
        """What was made since this was asked last."""
        made, self._made = tuple(self._made), []
        return made

    def missing(self, request: Request) -> list[Request]:
        """What `get` would make, in this order; judged by the `.key` files alone."""
        if _key_of(self._file(request)) == request.key:
            return []
        before = replace(request, quantizing=None) if request.quantizing else _cut(request)
        return [*(self.missing(before) if before else []), request]

    def makes(self, request: Request) -> set[str]:
        """The names of the files that `get` would make and that other requests may ask for too."""
        missing = self.missing(request)
        phases = [phase.name for phase in map(self._phase, missing) if phase]
        return {*(each.name for each in missing), *phases}

    def forget_phases(self, requests: Iterable[Request]) -> None:
        """Delete the sparse phases that these cuts at several ratios shared: all of them are made."""
        for phase in map(self._phase, requests):
            if phase:
                phase.unlink(missing_ok=True)

    def _float(self, request: Request) -> Backbone:
        return self._kept(request, _FLOAT, lambda file: self._slim(request, file))

    def _kept(self, request: Request, form: _Form[B], make: Callable[[Path], B]) -> B:
        file, key = self._file(request), request.key
        if key in self._refused:  # for another category, as the cut of a recovery, or to be quantized
            raise self._refused[key]
        with trying(file.with_name(f"{file.name}.lock"), wait=True):
            loaded = _loaded(file, key, form)
            if loaded is not None:
                return loaded
            start, first = time.perf_counter(), len(self._made)
            try:
                with keeping_last_good(file):
                    # Named by the key: what a killed run left behind for other images or steps is not gone on from.
                    backbone = make(file.with_name(f"{file.name}.{key[:8]}"))
            except CompressError as error:
                self._refused[key] = error
                raise
            _key_file(file).unlink(missing_ok=True)  # killed in between, no file may lie beside another's key
            form.save(backbone, file)
            atomic_write(_key_file(file), key + "\n")
            forget(file)
            for_it = sum(made.seconds for made in self._made[first:])
            self._made.append(Made(request.name, request.kind, time.perf_counter() - start - for_it))
            return backbone

    def _file(self, request: Request) -> Path:
        return self._folder / f"{request.name}{(_INT8 if request.quantizing else _FLOAT).suffix}"

    def _slim(self, request: Request, keep: Path) -> Backbone:
        parent, slimming, images, seed = request.parent, request.slimming, request.images, request.seed
        if slimming is None:
            return parent
        cut = _cut(request)
        if cut is None or slimming.recovering is None:
            return self._slim_at_once(request, slimming, keep)
        pruned = self._float(cut)
        run = slimming.recovering.run(seed, state_file(keep, "recovery"), self._track, self._report)
        return slimming.recovering.recover(pruned, parent, images, run)

    def _slim_at_once(self, request: Request, slimming: Slimming, keep: Path) -> Backbone:
        phase = self._phase(request)
        alone = trying(phase.with_suffix(".lock"), wait=True) if phase else contextlib.nullcontext()
        with alone:  # the next ratio waits for the end of the phase, and goes on from it
            return slimming.slim(
                request.parent,
                request.parent,
                request.images,
                ranking=self._ranking(request, slimming),
                seed=request.seed,
                keep=keep,
                phase=phase,
                track=self._track,
                report=self._report,
            )

    def _ranking(self, request: Request, slimming: Slimming) -> Ranking | None:
        """The parent's channels, scored once for cuts at several ratios, if they can be."""
        key = _at_any_ratio(request, slimming).key
        if self._ranked[0] != key:
            ranking = slimming.ranking(request.parent, request.images, seed=request.seed, track=self._track)
            self._ranked = (key, ranking)
        return self._ranked[1]

    def _phase(self, request: Request) -> Path | None:
        """Where the sparse phase keeps its state, if other ratios can go on from its end."""
        if request.slimming is None or not request.slimming.shares_phase:
            return None
        key = _at_any_ratio(request, request.slimming).key
        return self._folder / f"{request.parent.spec.arch}-{request.slimming.method}-s{request.seed}.{key[:8]}{_PHASE}"


def _at_any_ratio(request: Request, slimming: Slimming) -> Request:
    """What comes before a cut, which those at other ratios have in common with it."""
    before = replace(slimming, ratio=None, recovering=None, reinit=False)
    return replace(request, slimming=before, images=before.used(request.images), quantizing=None)


def _cut(request: Request) -> Request | None:
    """The cut alone, where that is a backbone of its own: a sweep often asks for it with and without its recovery."""
    slimming = request.slimming
    if slimming is None or slimming.recovering is None or slimming.cuts > 1 or slimming.reinit:
        return None
    cut = replace(slimming, recovering=None)
    return replace(request, slimming=cut, images=cut.used(request.images))


def _loaded(file: Path, key: str, form: _Form[B]) -> B | None:
    """The backbone, if its file is whole and was made from what `key` tells."""
    try:
        return form.load(file) if _key_of(file) == key else None
    except (OSError, CompressError):
        return None


def _key_of(file: Path) -> str | None:
    """What `file` was made from, if it is there."""
    try:
        return _key_file(file).read_text().strip() if file.is_file() else None
    except (OSError, UnicodeDecodeError):
        return None


def _key_file(file: Path) -> Path:
    return file.with_suffix(".key")
