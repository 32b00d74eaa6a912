"""What sweeps leave and read again: rows, evidence, records of runs; and the TOML files that users write."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from anomaly import AnomalyError
from benchmarks.fuzz.containers import damaged_npz
from benchmarks.fuzz.damage import damaged, damaged_json, odd_value
from benchmarks.fuzz.reader import Reader, clear, in_a_file, lay_odd
from compress import CompressError
from pipelines.evidence import write_evidence
from pipelines.pretraining import PretrainingRecipe
from pipelines.results import Row, read_results
from pipelines.run_records import Announced, Record
from pipelines.status import folder_status
from pipelines.sweep_plan import SweepPlan
from reports import Examples, ReportError, Scores, render, summarize, terminal_table

_REFUSALS = (CompressError, AnomalyError)


def row(**changes: Any) -> dict[str, Any]:
    """A row of results, as `compress evaluate` writes it."""
    texts = {"arch": "resnet18", "method": "magnitude", "scope": "local", "recover": "none", "precision": "fp32"}
    filled: dict[str, Any] = {field.name: 0.5 for field in dataclasses.fields(Row)}
    filled |= {**texts, "ratio": 0.0, "dataset": "tiles", "category": "a", "seed": 0, "versions": {"torch": "2"}}
    filled |= {"command": "compress sweep", "machine": "cpu", "runtime": "pytorch", "index": "exact", "threads": 1}
    return {**filled, "data_fingerprint": "x", "weights_source": "none", "weights_fingerprint": None, **changes}


def evidence(file: Path) -> dict[str, Any]:
    """Images and scores of four test images, written to `file`; returns the arrays in it."""
    rng = np.random.default_rng(0)
    names, kinds = ["a", "b", "c", "d"], ["good", "good", "bad", "bad"]
    images, maps = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), rng.random((4, 8, 8), dtype=np.float32)
    examples = Examples(names, kinds, images, maps > 0.5, maps, maps.max((1, 2)), 0.0, 1.0)
    labels, small = np.array([False, False, True, True]), (maps * 255).astype(np.uint8)
    scores = Scores(names, labels, maps.max((1, 2)), small, 0.0, 1.0, np.linspace(0, 1, 20).reshape(4, 5))
    write_evidence(file, examples, scores)
    with np.load(file) as stored:
        return dict(stored)


def results(workshop: Path) -> Reader:
    """A folder of rows, evidence and failures: read, summarised, and shown as a table and as Markdown."""
    whole = workshop / "runs"
    whole.mkdir()
    rows = {f"{name}.json": row(ratio=ratio) for name, ratio in (("dense", 0.0), ("half", 0.5))}
    rows["gone.failed.json"] = {"failed": "no channel is left", "key": "x"}
    for name, content in rows.items():
        (whole / name).write_text(json.dumps(content))
    arrays = evidence(whole / "dense.npz")
    evidence(whole / "half.npz")
    packed = (whole / "dense.npz").read_bytes()

    def harm(rng: Random, place: Path) -> None:
        shutil.copytree(whole, place)
        name = rng.choice((*rows, *rows, "dense.npz", "half.npz"))
        file = place / name
        kind = rng.randrange(20)
        if kind == 0:
            clear(file)
            lay_odd(rng, file)
        elif name.endswith(".npz"):
            file.write_bytes(damaged(rng, packed) if kind < 6 else damaged_npz(rng, arrays))
        else:
            content = rows[name]
            text = damaged_json(rng, rng.choice((content, content, [content, row(seed=1)])))
            file.write_bytes(text.encode("utf-8", "surrogatepass"))

    def read(place: Path) -> object:
        runs, failures = read_results(place)
        summary = summarize(runs)
        terminal_table(summary)
        return render(runs, failures, "compress report", formats=("markdown", "csv", "latex"), summary=summary)

    read(whole)  # which imports what the first report does
    return Reader("", harm, read, (CompressError, ReportError))


def records(workshop: Path) -> Reader:
    """What `compress status` reads: plans of sweeps, and a record for each run."""
    whole = workshop / "runs"
    (whole / "progress").mkdir(parents=True)
    started = "2026-01-01T00:00:00+00:00"
    contents = {
        "progress/sweep-0123456789ab.json": dataclasses.asdict(
            Announced("0123456789ab", started, "compress sweep", {"a": "k", "b": "k", "c": "k"})
        ),
        "progress/a.json": dataclasses.asdict(Record("done", "k", "resnet18 on x", started, 7, 3.0, 1.0)),
        "progress/b.json": dataclasses.asdict(Record("running", "k", "resnet18 on x", started, 8)),
        "a.json": row(key="k"),
        "c.failed.json": {"failed": "no channel is left", "key": "k"},
    }
    for name, content in contents.items():
        (whole / name).write_text(json.dumps(content))
    (whole / "progress" / "b.lock").touch()
    (whole / "progress" / "sweep-0123456789ab-00000000.lock").touch()

    def harm(rng: Random, place: Path) -> None:
        shutil.copytree(whole, place)
        file = place / rng.choice([*contents, *contents, "progress/b.lock"])
        if rng.random() < 0.03 or file.suffix == ".lock":
            clear(file)
            lay_odd(rng, file)
        else:
            content = contents[str(file.relative_to(place))]
            file.write_bytes(damaged_json(rng, content).encode("utf-8", "surrogatepass"))

    return Reader("", harm, folder_status, (CompressError,))


def damaged_toml(rng: Random, values: dict[str, Any]) -> bytes:
    """Some of `values` as TOML with an odd value, an unknown key, a deep nest, or damaged as text."""
    chosen = {name: value for name, value in values.items() if rng.random() < 0.5}
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(list(values))
        chosen[name] = rng.choice((odd_value(rng), [odd_value(rng)], rng.choice(list(values.values()))))
    lines = [f"{name} = {_toml(value)}" for name, value in chosen.items() if value is not None]
    kind = rng.random()
    if kind < 0.05:
        lines.append(
            rng.choice(("surprise = 1", "seeds = [0]", "[a.b.c]", "a" + ".a" * 20_000 + " = 1", '"\\u0000" = 1'))
        )
    elif kind < 0.1:
        depth = rng.choice((90, 900, 50_000))
        lines.append(rng.choice(("archs = " + "[" * depth + "]" * depth, "a = " + "{a = " * depth + "1" + "}" * depth)))
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    return damaged(rng, content) if rng.random() < 0.2 else content


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value if each is not None) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def sweep_plan(workshop: Path) -> Reader:
    """The TOML file of a sweep, and all that the plan refuses before it runs."""
    values = {field.name: field.default for field in dataclasses.fields(SweepPlan)}
    values |= {"memory": "512M", "features": "cache", "images": ("photos",), "steps": 5, "scope": "local"}

    def read(place: Path) -> object:
        plan = SweepPlan.from_toml(place)
        return plan.slimmings(), [plan.detector(seed) for seed in plan.seeds]

    return Reader(".toml", in_a_file(lambda rng: damaged_toml(rng, values)), read, _REFUSALS)


def recipe(workshop: Path) -> Reader:
    """The TOML file of a pretraining."""
    values = {"arch": "resnet18", "teacher": "resnet18", "images": ("photos",), "steps": 5, "frozen_norms": 0.3}
    values |= {"teacher_weights": "bundled", "batch": 8, "crop": 64, "lr": 0.1, "seed": 3}

    def read(place: Path) -> object:
        return PretrainingRecipe.read(str(place))

    return Reader(".toml", in_a_file(lambda rng: damaged_toml(rng, values)), read, _REFUSALS)


READERS: dict[str, Callable[[Path], Reader]] = {
    "results": results,
    "records": records,
    "sweep-plan": sweep_plan,
    "recipe": recipe,
}
