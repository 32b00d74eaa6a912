"""The command line on damaged files and odd words: one line and an exit code from 0 to 2, whatever is typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from typer.testing import CliRunner

from benchmarks.fuzz import data, models, records
from benchmarks.fuzz.reader import MIB, Reader, lay_odd
from pipelines.cli import app

_WORDS = (
    *(
        "",
        "-",
        "--",
        "-1",
        "0",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "9" * 400,
        "0.5,",
        ",",
        "a,b",
        "x" * 5000,
        "[bold]",
        "é",
    ),
    *(
        "\x1b[2J",
        "a\nb",
        "..",
        "/proc",
        "/dev/zero",
        "/dev/null",
        "resnet18",
        "nothing",
        "--json",
        "--help",
        "-o",
        "%s",
        "\udcff",
    ),
)
# What each command is typed with, `FILE` being the damaged input. None of them succeeds in more than a second.
_LINES = (
    ("profile", "FILE.safetensors", "--json"),
    ("profile", "FILE.onnx"),
    ("prune", "--arch", "FILE.safetensors", "--ratio", "0.5", "-o", "out.safetensors"),
    ("prune", "--arch", "resnet18", "--ratio", "nan", "--weights", "none"),
    ("distill", "FILE.safetensors", "--images", "nowhere"),
    ("quantize", "FILE.safetensors", "--images", "nowhere", "-o", "out.onnx"),
    ("evaluate", "FILE.safetensors", "--dataset", "nowhere"),
    ("evaluate", "FILE.onnx", "--dataset", "nowhere", "--coreset", "0.1"),
    ("sensitivity", "FILE.safetensors", "--dataset", "nowhere"),
    ("fit", "--backbone", "FILE.safetensors", "--dataset", "nowhere", "-o", "out.detector"),
    ("export", "FILE.detector", "-o", "out.onnx"),
    ("predict", "FILE.onnx", "FILE.png"),
    ("predict", "FILE.onnx", "nowhere*", "--batch", "2"),
    ("sweep", "FILE.toml", "-o", "out", "--arch", "nothing"),
    ("sweep", "--arch", "nothing", "--ratios", "0,0.5", "--dataset", "nowhere", "-o", "out"),
    ("status", "FILE.folder", "--json"),
    ("report", "FILE.folder", "-o", "out", "--format", "csv"),
    ("compare", "FILE.json", "FILE.json"),
    ("compare", "FILE.json", "FILE.json", "--json", "--resamples", "100"),
    ("pretrain", "FILE.toml", "-o", "out.safetensors"),
    ("index-report", "FILE.safetensors", "--dataset", "nowhere"),
    ("study", "FILE.safetensors", "--dataset", "nowhere"),
    ("methods", "--json"),
    ("backbones",),
)


class LineError(Exception):
    """A command that ended in something else than an exit code and one line."""


def command_line(workshop: Path) -> Reader:
    """Every command, in this process."""
    makers = {
        ".safetensors": models.artifact,
        ".onnx": models.exported,
        ".detector": models.detector,
        ".png": data.image,
    }
    makers |= {".toml": records.sweep_plan, ".folder": records.results}
    readers = {}
    for suffix, make in makers.items():
        (workshop / suffix[1:]).mkdir()
        readers[suffix] = make(workshop / suffix[1:])

    def harm(rng: Random, place: Path) -> None:
        place.mkdir()
        words = list(rng.choice(_LINES))
        for suffix in {Path(word).suffix for word in words if word.startswith("FILE.")}:
            target = place / f"FILE{suffix}"
            if suffix == ".json":
                target.write_text(json.dumps(records.row()), encoding="utf-8")
            elif rng.random() < 0.9:
                (lay_odd if rng.random() < 0.05 else readers[suffix].harm)(rng, target)
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            at = rng.randrange(1, len(words) + 1)
            words[at : at + rng.randrange(2)] = [rng.choice(_WORDS)]
        (place / "words.json").write_text(json.dumps(words))

    def read(place: Path) -> object:
        words = ["report", str(place)]
        if (place / "words.json").is_file():
            typed = json.loads((place / "words.json").read_text())
            words = [str(place / word) if word.startswith(("FILE.", "out", "nowhere")) else word for word in typed]
        result = CliRunner().invoke(app, words)
        shutil.rmtree(place / "out", ignore_errors=True)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code not in (0, 1, 2) or "Traceback" in result.stderr:
            raise LineError(f"{words}: exit code {result.exit_code}, {result.stderr[:500]}")
        refusals = [line for line in result.stderr.splitlines() if line.startswith("compress: ")]
        if result.exit_code == 2 and words[0] != "predict" and len(refusals) != 1:
            raise LineError(f"{words}: refused in {len(refusals)} lines: {result.stderr[:500]!r}")
        if "\x1b" in result.stderr or len(result.stderr) > 20_000:
            raise LineError(f"{words}: {len(result.stderr)} characters on stderr: {result.stderr[:300]!r}")
        return result

    return Reader("", harm, read, (), 600 * MIB)


READERS: dict[str, Callable[[Path], Reader]] = {"command-line": command_line}
