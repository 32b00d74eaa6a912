"""The backbones of a sweep: each made once, kept as an artifact, and made again only when its inputs change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import replace
from pathlib import Path

from anomaly.progress import Track, quiet
from compress import Backbone, load_backbone, save
from compress.errors import CompressError
from compress.files import atomic_write
from compress.training import Report
from pipelines.slimming import Images, Slimming, forget, keeping_last_good, state_file

# Raise it when the same inputs give another backbone, because training or a criterion changed.
_PROTOCOL = 2


class BackboneStore:
    """Artifacts in `folder`, each with a `.key` beside it that tells what it was made from.

    Raises:
        CompressError: `folder` cannot be made.
    """

    def __init__(self, folder: Path, *, track: Track = quiet, report: Report | None = None) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CompressError(f"cannot write results to {folder}: {error.strerror}") from error
        self._folder, self._track, self._report = folder, track, report
        self._refused: dict[str, CompressError] = {}

    def name(self, parent: Backbone, slimming: Slimming | None, seed: int) -> str:
        """The name of a backbone's files; None as slimming is the dense one."""
        return f"{parent.spec.arch}-{slimming.name if slimming else 'dense'}-s{seed}"

    def key(self, parent: Backbone, slimming: Slimming | None, images: Images, seed: int) -> str:
        """What a backbone is made from, as one hash: equal inputs, equal key."""
        spec = parent.spec
        inputs = [_PROTOCOL, spec.arch, spec.taps, dataclasses.asdict(spec.weights), images.fingerprints, seed]
        how = slimming.asked(seed) if slimming else None
        return hashlib.sha256(json.dumps([*inputs, how], sort_keys=True).encode()).hexdigest()

    def get(self, parent: Backbone, slimming: Slimming | None, images: Images, seed: int) -> Backbone:
        """The backbone, out of the folder if it was made there from the same inputs.

        Raises:
            CompressError: it cannot be made, see `Slimming.slim`.
        """
        file = self._folder / f"{self.name(parent, slimming, seed)}.safetensors"
        key = self.key(parent, slimming, images, seed)
        made = _made(file, key)
        if made is not None:
            return made
        if key in self._refused:  # for another category, or as the cut of a recovery
            raise self._refused[key]
        # Named by the key: what a killed run left behind for other images or steps is not gone on from.
        keep = file.with_name(f"{file.name}.{key[:8]}")
        try:
            with keeping_last_good(file):
                backbone = self._make(parent, slimming, images, seed, keep)
        except CompressError as error:
            self._refused[key] = error
            raise
        _key_file(file).unlink(missing_ok=True)  # killed in between, no artifact may lie beside another's key
        save(backbone, file)
        atomic_write(_key_file(file), key + "\n")
        forget(file)
        return backbone

    def _make(self, parent: Backbone, slimming: Slimming | None, images: Images, seed: int, keep: Path) -> Backbone:
        if slimming is None:
            return parent
        if slimming.recovering is None or slimming.cuts > 1 or slimming.reinit:
            return slimming.slim(parent, parent, images, seed=seed, keep=keep, track=self._track, report=self._report)
        # A sweep often asks for the same cut with and without its recovery: the sparse phase is run once.
        cut = replace(slimming, recovering=None)
        pruned = self.get(parent, cut, cut.used(images), seed)
        run = slimming.recovering.run(seed, state_file(keep, "recovery"), self._track, self._report)
        return slimming.recovering.recover(pruned, parent, images, run)


def _made(file: Path, key: str) -> Backbone | None:
    """The artifact, if it is whole and was made from what `key` tells."""
    try:
        return load_backbone(file) if _key_file(file).read_text().strip() == key else None
    except (OSError, UnicodeDecodeError, CompressError):
        return None


def _key_file(file: Path) -> Path:
    return file.with_suffix(".key")
