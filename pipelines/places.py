"""Where data, weights and caches lie. The only file that reads the environment.

Others only set, before they import Ray, MLflow or NNCF, what keeps that library from reporting its use.

`PRUNECORE_DATA` is a folder with `data/` (datasets) and `weights/` (files named ARCH-*.safetensors).
`PRUNECORE_CACHE` is where generated datasets are kept. `PRUNECORE_OFFLINE=1` keeps `--weights auto` off the network.
"""

from __future__ import annotations

import os
from pathlib import Path

from anomaly import DATASETS
from compress.errors import CompressError

_HANDED_ON = ("PRUNECORE_DATA", "PRUNECORE_CACHE", "PRUNECORE_OFFLINE")


def cache_folder() -> Path:
    """`PRUNECORE_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("PRUNECORE_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunecore"
    except RuntimeError as error:
        raise CompressError("this user has no home folder to keep generated images in: set PRUNECORE_CACHE") from error


def find_dataset(name: str) -> str:
    """`name` as a registered dataset or a folder; else the folder of that name in `PRUNECORE_DATA`, if there."""
    shared = _shared("data", name)
    return name if name in DATASETS or Path(name).is_dir() or shared is None else str(shared)


def find_weights(arch: str, weights: str) -> str:
    """`weights` as given; `auto`, `local` and names of no file here are looked up in `PRUNECORE_DATA` first.

    With `PRUNECORE_OFFLINE` set, and not to 0, `auto` is `local`: no download.
    """
    if weights == "auto" and os.environ.get("PRUNECORE_OFFLINE", "0") not in ("", "0"):
        weights = "local"
    folder = _shared("weights", "")
    if folder is None:
        return weights
    if weights in ("auto", "local"):
        files = sorted(file for file in folder.iterdir() if file.suffix == ".safetensors")
        own = [file for file in files if file.stem == arch or file.name.startswith(f"{arch}-")]
        return str(own[0]) if own else weights
    file = folder / weights
    return str(file) if file.is_file() and not Path(weights).is_file() else weights


def variables() -> dict[str, str]:
    """The variables that are set, for workers on other machines."""
    return {name: os.environ[name] for name in _HANDED_ON if name in os.environ}


def _shared(kind: str, name: str) -> Path | None:
    root = os.environ.get("PRUNECORE_DATA")
    if not root:
        return None
    if not Path(root).is_dir():
        raise CompressError(f"PRUNECORE_DATA is {root!r}, which is no folder: correct it or leave it unset")
    place = Path(root) / kind / name
    return place if place.is_dir() else None
