"""Where data, weights and caches lie. The only file that reads the environment.

`PRUNECORE_DATA` is a folder with `data/` (datasets) and `weights/` (files named ARCH-*.safetensors).
`PRUNECORE_CACHE` is where generated datasets are kept.
"""

from __future__ import annotations

import os
from pathlib import Path

from anomaly import DATASETS


def cache_folder() -> Path:
    """`PRUNECORE_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PRUNECORE_CACHE") or Path(base) / "prunecore")


def find_dataset(name: str) -> str:
    """`name` as a registered dataset or a folder; else the folder of that name in `PRUNECORE_DATA`, if there."""
    shared = _shared("data", name)
    return name if name in DATASETS or Path(name).is_dir() or shared is None else str(shared)


def find_weights(arch: str, weights: str) -> str:
    """`weights` as given; `auto` and names of no file here are looked up in `PRUNECORE_DATA` first."""
    folder = _shared("weights", "")
    if folder is None:
        return weights
    if weights == "auto":
        files = [*folder.glob(f"{arch}.safetensors"), *sorted(folder.glob(f"{arch}-*.safetensors"))]
        return str(files[0]) if files else weights
    file = folder / weights
    return str(file) if file.is_file() and not Path(weights).is_file() else weights


def _shared(kind: str, name: str) -> Path | None:
    root = os.environ.get("PRUNECORE_DATA")
    place = Path(root) / kind / name if root else None
    return place if place is not None and place.is_dir() else None
