"""Writes a generated dataset to disk in the MVTec AD layout, whole or not at all."""

from __future__ import annotations

import difflib
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from anomaly.datasets.generated.camera import photograph
from anomaly.datasets.generated.surfaces import SURFACES
from anomaly.errors import AnomalyError
from anomaly.progress import Track, quiet
from anomaly.samples import GOOD

# Changes whenever any pixel of the output changes.
VERSION = "1"

_SMALLEST = 64


@dataclass(frozen=True)
class Job:
    """One image to make."""

    surface: str
    split: str
    kind: str
    index: int


def generate(
    folder: Path,
    *,
    seed: int = 0,
    surfaces: Sequence[str] | None = None,
    train: int = 60,
    good: int = 30,
    per_defect: int = 6,
    size: int = 256,
    track: Track = quiet,
) -> Path:
    """Makes a dataset of surfaces with and without defects in the MVTec AD layout; returns `folder`.

    The same arguments give the same bytes, and no image depends on how many others are made. A killed run leaves
    nothing at `folder`, at most a hidden `.partial` folder beside it.

    Args:
        folder: where to; missing or empty.
        surfaces: names in `SURFACES`; all by default.
        train: good images to learn from, per surface.
        good: good images to test on, per surface.
        per_defect: defective images to test on, per surface and kind of defect.
        size: side of the square images in pixels; the same scene at any size.
        track: wraps the loop over images.

    Raises:
        AnomalyError: an unknown surface, a count out of range, or a `folder` that holds anything or cannot be written.
    """
    names = _checked_surfaces(surfaces)
    _check_counts(seed=seed, train=train, good=good, per_defect=per_defect, size=size)
    folder = Path(folder)
    jobs = [job for name in names for job in _jobs(name, train=train, good=good, per_defect=per_defect)]
    # A sibling lies on the same file system, so that the last step is one rename.
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.partial"
    try:
        _refuse_full(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        for job in track(jobs, "generating images", len(jobs)):
            _write(staging / job.surface, job, seed=seed, size=size)
        manifest = {
            "version": VERSION,
            "seed": seed,
            "size": size,
            "surfaces": {name: list(SURFACES[name].defects) for name in names},
            "counts": {"train": train, "good": good, "per_defect": per_defect, "images": len(jobs)},
        }
        (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        # Whole only if nobody filled the folder in the meantime; some systems do not rename onto an empty one.
        _refuse_full(folder)
        if folder.exists():
            folder.rmdir()
        staging.replace(folder)
    except OSError as error:
        raise AnomalyError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # there is nothing left of it where all went well
    return folder


def _refuse_full(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AnomalyError(f"{folder} exists and is not an empty folder: remove it or name another")


def _checked_surfaces(surfaces: Sequence[str] | None) -> list[str]:
    names = list(SURFACES) if surfaces is None else list(dict.fromkeys(surfaces))
    for name in names:
        if name not in SURFACES:
            near = difflib.get_close_matches(name, SURFACES, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(SURFACES)}"
            raise AnomalyError(f"no surface {name!r}: {hint}")
    if not names:
        raise AnomalyError(f"no surface asked for: choose from {', '.join(SURFACES)}")
    return names


def _check_counts(*, seed: int, train: int, good: int, per_defect: int, size: int) -> None:
    limits = {"seed": (seed, 0), "train": (train, 1), "good": (good, 0), "per_defect": (per_defect, 0)}
    for name, (value, lowest) in {**limits, "size": (size, _SMALLEST)}.items():
        if value < lowest:
            raise AnomalyError(f"{name} is {value}, the least is {lowest}: raise it")


def _jobs(surface: str, *, train: int, good: int, per_defect: int) -> list[Job]:
    jobs = [Job(surface, "train", GOOD, index) for index in range(train)]
    jobs += [Job(surface, "test", GOOD, index) for index in range(good)]
    kinds = SURFACES[surface].defects
    return jobs + [Job(surface, "test", kind, index) for kind in kinds for index in range(per_defect)]


def _write(folder: Path, job: Job, *, seed: int, size: int) -> None:
    shot = photograph(job.surface, job.kind, job.split, job.index, seed=seed, size=size)
    _save(Image.fromarray(shot.image), folder / job.split / job.kind / f"{job.index:03d}.png")
    if job.kind != GOOD:
        # L, not 1: many readers expect 0 and 255.
        mask = Image.fromarray(shot.mask).convert("L")
        _save(mask, folder / "ground_truth" / job.kind / f"{job.index:03d}_mask.png")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Noise hardly compresses: a higher level costs time and saves nothing.
    image.save(path, compress_level=1)
