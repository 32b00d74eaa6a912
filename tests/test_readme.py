"""The README tells the truth: its code runs, its commands exist, its numbers are those of the results beside it."""

from __future__ import annotations

import csv
import json
import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

import compress
from pipelines.cli import app
from reports import Run, render

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "docs" / "results" / "magnetic_tile"
NUMBERS = ("params_full", "params_used", "macs_full", "macs_used")


def _rows() -> list[dict[str, object]]:
    with (RESULTS / "results.csv").open(newline="") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text or None


def test_the_library_example_runs(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "surfaces").symlink_to(tiny_dataset)
    (tmp_path / "example.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path("example.py")
    assert names["slim"].feature_info.channels() == [28, 78]
    assert len(names["detector"].bank) == 47


def test_every_command_exists() -> None:
    commands = set(re.findall(r"^    compress ([a-z]+)", README, flags=re.MULTILINE))
    assert len(commands) >= 8
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_every_link_and_picture_is_there() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert len(targets) >= 4
    for target in targets:
        assert (ROOT / target).is_file(), target


def test_the_table_is_made_of_the_results_beside_it() -> None:
    (block,) = re.findall(r"<!-- results -->\n(.*?)\n<!-- /results -->", README, flags=re.DOTALL)
    rows = _rows()
    assert len(rows) == 11
    report = render([Run(row) for row in rows], [], "")["report.md"].decode()
    assert block.strip() in report
    assert block.strip() in (RESULTS / "report.md").read_text()


@pytest.mark.parametrize("row", _rows(), ids=lambda row: f"{row['method']}-{row['ratio']}")
def test_sizes_in_the_table_are_recomputed(row: dict[str, object]) -> None:
    backbone = compress.create_backbone(str(row["arch"]), weights="none")
    if row["method"] != "none":
        backbone = compress.prune(backbone, ratio=float(str(row["ratio"])), method=str(row["method"]))
    cost = compress.cost_of(backbone)
    assert [getattr(cost, name) for name in NUMBERS] == [row[name] for name in NUMBERS]
