"""Other people's packages, each in a folder of its own beside our environment, installed once and kept."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from filelock import FileLock

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
EXTRAS = ("anomalib", "segmentation")
# What pip and npm say where no registry answers; whatever else goes wrong fails the test.
OFFLINE = ("from versions: none", "ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT")


def peers_folder(config: pytest.Config) -> Path:
    """Where the peers are kept: PRUNECORE_PEERS, or pytest's own cache."""
    return Path(os.environ.get("PRUNECORE_PEERS") or config.cache.mkdir("peers"))  # type: ignore[union-attr]


def python_with_peers(folder: Path) -> Path:
    """An interpreter that has the packages of our `EXTRAS`, and sees through to this environment for all others."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [requirement for extra in EXTRAS for requirement in extras[extra]]
    environment = folder / "python"
    (python, pip) = (environment / "bin" / name for name in ("python", "pip"))

    def install() -> None:
        venv.create(environment, with_pip=True)
        (own,) = environment.glob("lib/python*/site-packages")
        # Not a copy of torch: 5 GB. What pip installs here comes first, and ours is what it need not install.
        (own / "below.pth").write_text("\n".join(site.getsitepackages()) + "\n")
        _ask_registry([pip, "install", "--quiet", "--retries", "1", "--timeout", "20", *wanted])

    _once(environment, [sys.prefix, sys.version, *wanted], install)
    return python


def node_with_peers(folder: Path) -> tuple[str, Path]:
    """Node.js, and a copy of examples/node with the packages that it asks for."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no node and npm here to run JavaScript with")
    files = [ROOT / "examples" / "node" / name for name in ("package.json", "predict.mjs")]
    copy = folder / "node"

    def install() -> None:
        copy.mkdir()
        for file in files:
            shutil.copy(file, copy)
        _ask_registry(
            [npm, "install", "--prefix", copy, "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "1"]
        )

    _once(copy, [file.read_text() for file in files], install)
    return node, copy


def _once(made: Path, recipe: Sequence[str], install: Callable[[], None]) -> None:
    """Makes `made` anew unless it was made, whole, by the same recipe; one process does, the others wait for it."""
    made.parent.mkdir(parents=True, exist_ok=True)
    stamp, text = made.with_suffix(".made"), json.dumps(recipe)
    with FileLock(made.with_suffix(".lock")):
        if stamp.is_file() and stamp.read_text() == text:
            return
        stamp.unlink(missing_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        install()
        stamp.write_text(text)


def _ask_registry(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    said = done.stdout + done.stderr
    silent = [line for line in said.splitlines() if any(sign in line for sign in OFFLINE)]
    if done.returncode and silent:
        pytest.skip(f"no registry answers: {silent[0].strip()}")
    assert done.returncode == 0, said
