"""The fitted detector on disk: one zip of a backbone, its memory bank, a few training images and a description.

    detector.json               what it is: see `Description`
    backbone.safetensors        the backbone's artifact, or backbone.onnx
    bank.safetensors            `vectors` (K, D) float32
    images.safetensors          `images` (N, 256, 256, 3) uint8: training images that an export is checked on

Entries are stored, not compressed, so none is larger than the file that holds it; nothing in it is unpickled, and no
entry's name becomes a path. No index is kept: the search is exact, in the vectors themselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

import compress
from anomaly import PatchCore
from anomaly.memory_bank import MemoryBank
from anomaly.threshold import Threshold
from compress import Backbone, CompressError, OnnxBackbone, load_onnx
from compress.artifact import UNREADABLE
from compress.files import atomic_write, require_file, require_short_header
from prunecore_runtime.images import RESIZE

FORMAT = "prunecore-detector/1"
DESCRIPTION, BANK, IMAGES = "detector.json", "bank.safetensors", "images.safetensors"
BACKBONES = ("backbone.safetensors", "backbone.onnx")


@dataclass(frozen=True)
class ScoreDifference:
    """Int8 against float, both fitted and judged on one validation split: good images, and some with painted defects.

    Attributes:
        good, defective: how many images were scored.
        mean, largest: of |int8 score - float score|, as a share of the range of the float scores.
        rank_correlation: Spearman's, of all images' scores; 1 is one order.
        changed: painted images that one detector takes for defective and the other does not, each by a threshold of its
            own that is set on the good images.
    """

    good: int
    defective: int
    mean: float
    largest: float
    rank_correlation: float
    changed: int

    def told(self) -> str:
        """In one sentence."""
        return (
            f"int8 against float, on {self.good} good and {self.defective} painted images: scores differ by "
            f"{self.mean:.1%} of their range, {self.largest:.1%} at most; rank correlation "
            f"{self.rank_correlation:.4f}; {self.changed} of {self.defective} painted defects change sides"
        )


@dataclass(frozen=True)
class Description:
    """What a detector was fitted on, how, and with what.

    Attributes:
        settings: coreset, bank_size, seed, folds.
        fingerprints: SHA-256 of the data, of the backbone (as its file tells it), of the bank.
        int8_difference: what an int8 backbone changes against the float one that it was made from, where that is known.
    """

    dataset: str
    category: str
    images: int
    settings: Mapping[str, Any]
    threshold: Threshold
    fingerprints: Mapping[str, str]
    versions: Mapping[str, str]
    command: str
    int8_difference: ScoreDifference | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON values, with the format."""
        return {"format": FORMAT, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class FittedDetector:
    """A detector that is ready to predict.

    Attributes:
        bank: (K, D) float32.
        images: (N, 256, 256, 3) uint8, some of the training images.
    """

    backbone: Backbone | OnnxBackbone
    bank: Tensor
    images: Tensor
    description: Description

    def patchcore(self) -> PatchCore:
        """The detector, as Python runs it."""
        detector = PatchCore(self.backbone, mean=self.backbone.mean, std=self.backbone.std)
        return detector.use_bank(MemoryBank(self.bank))


def save_detector(detector: FittedDetector, path: str | os.PathLike[str]) -> None:
    """Write `detector` to `path`, whole or not at all.

    Raises:
        CompressError: `path` cannot be written.
    """
    name, backbone = _backbone_entry(detector.backbone)
    entries = {
        name: backbone,
        BANK: save({"vectors": detector.bank.contiguous()}),
        IMAGES: save({"images": detector.images.contiguous()}),
    }
    described = {
        **detector.description.as_json(),
        "sha256": {entry: hashlib.sha256(content).hexdigest() for entry, content in entries.items()},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(DESCRIPTION), json.dumps(described, indent=1))
        for entry, content in entries.items():
            archive.writestr(zipfile.ZipInfo(entry), content)
    atomic_write(path, buffer.getvalue())


def load_detector(path: str | os.PathLike[str]) -> FittedDetector:
    """The detector in `path`.

    Raises:
        CompressError: the file is missing, truncated, edited, foreign, or of a newer format.
    """
    file = Path(path)
    entries = _read(file)
    try:
        described = json.loads(entries.pop(DESCRIPTION))
        found = str(described["format"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CompressError(f"{file} is no detector of ours: compress fit makes them") from error
    if not found.startswith("prunecore-detector/"):
        raise CompressError(f"{file} is no detector of ours (its format is {found}): compress fit makes them")
    if found != FORMAT:
        raise CompressError(f"{file} has format {found}, this version reads {FORMAT}: upgrade prunecore")
    try:
        digests = {entry: hashlib.sha256(content).hexdigest() for entry, content in entries.items()}
        _require(digests == described["sha256"], "its parts are not those that it was saved with")
        names = [name for name in entries if name in BACKBONES]
        _require(len(names) == 1, "it holds no backbone, or two")
        backbone = _backbone(names[0], entries[names[0]])
        for part in (BANK, IMAGES):
            require_short_header(entries[part])
        bank, images = load(entries[BANK])["vectors"], load(entries[IMAGES])["images"]
        _check(bank, images, sum(backbone.feature_info.channels()))
        return FittedDetector(backbone, bank, images, _parse(described))
    except (SafetensorError, *UNREADABLE) as error:
        raise CompressError(f"{file} is damaged or was changed ({error}): fit the detector again") from error
    except CompressError as error:
        raise CompressError(f"{file}: {error}") from error


def _backbone_entry(backbone: Backbone | OnnxBackbone) -> tuple[str, bytes]:
    """The entry that a backbone makes: its name and its content."""
    if isinstance(backbone, OnnxBackbone):
        return BACKBONES[1], backbone.content
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, BACKBONES[0])
        compress.save(backbone, file)
        return BACKBONES[0], file.read_bytes()


def _read(file: Path) -> dict[str, bytes]:
    """All entries, each of a known name, stored as it is."""
    require_file(file)
    known = {DESCRIPTION, BANK, IMAGES, *BACKBONES}
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if DESCRIPTION not in names or not known.issuperset(names) or len(set(names)) != len(names):
                raise CompressError(f"{file} is no detector of ours: compress fit makes them")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
                raise CompressError(f"{file} holds compressed or encrypted parts, which ours never do: fit it again")
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, MemoryError) as error:
        told = str(error) or "it ends too early"  # an EOFError has no words
        raise CompressError(f"{file} is truncated, damaged or no detector ({told})") from error


def _backbone(name: str, content: bytes) -> Backbone | OnnxBackbone:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.write_bytes(content)
        return load_onnx(file) if name == BACKBONES[1] else compress.load_backbone(file)


def _check(bank: Tensor, images: Tensor, dimensions: int) -> None:
    fits = bank.ndim == 2 and len(bank) > 0 and bank.shape[1] == dimensions and bank.dtype is torch.float32
    _require(fits and bool(bank.isfinite().all()), f"the bank is {bank.dtype} {tuple(bank.shape)}")
    fits = images.ndim == 4 and len(images) > 0 and images.shape[1:] == (RESIZE, RESIZE, 3)
    _require(fits and images.dtype is torch.uint8, f"the images are {images.dtype} {tuple(images.shape)}")


def _parse(described: dict[str, Any]) -> Description:
    described = {"int8_difference": None, **described}  # which earlier versions did not measure
    fields = {field.name: described[field.name] for field in dataclasses.fields(Description)}
    given = described["threshold"]
    value, quantile, attained = (float(given[name]) for name in ("value", "quantile", "attained"))
    _require(0 < value < float("inf"), f"threshold {value} is not above 0")
    fields["threshold"] = Threshold(value, quantile, attained, int(given["images"]))
    difference = described["int8_difference"]
    fields["int8_difference"] = None if difference is None else ScoreDifference(**difference)
    return Description(**fields)


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise ValueError(complaint)
