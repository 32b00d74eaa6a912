"""The examples that put a slim backbone into other projects run with these projects, and what they make works."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from peers import ROOT, peers_folder, python_with_peers

import compress
from anomaly.datasets.generated import generate

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `slim.safetensors` and `surfaces/`, as the commands in the examples make them."""
    folder = tmp_path_factory.mktemp("peers")
    net = compress.create_backbone("resnet18", weights="bundled")
    compress.save(compress.prune(net, ratio=0.3, method="magnitude"), folder / "slim.safetensors")
    generate(folder / "surfaces", surfaces=["printed_grid"], train=16, good=8, per_defect=2)
    return folder


@pytest.fixture(scope="module")
def python(pytestconfig: pytest.Config) -> Path:
    return python_with_peers(peers_folder(pytestconfig))


def run(python: str | Path, example: str, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, EXAMPLES / example, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    print(done.stdout)  # shown where a test fails
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern: str, output: str) -> dict[str, tuple[float, ...]]:
    """The numbers after each name: `pattern` has a group for the name, then one for each number."""
    return {name: tuple(map(float, found)) for name, *found in re.findall(pattern, output)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_anomalib_trains_and_tests_on_a_slim_backbone(folder: Path, python: Path) -> None:
    output = run(python, "anomalib_detectors.py", "slim.safetensors", "surfaces", "printed_grid", cwd=folder)
    auroc = numbers(r"(\w+): image AUROC (\S+), pixel AUROC (\S+)", output)
    assert list(auroc) == ["Patchcore", "Padim", "STFPM"]
    assert auroc["Patchcore"][0] > 0.75
    assert all(pixel > 0.6 for _, pixel in auroc.values())


@pytest.mark.parametrize("page", ["anomalib"])
def test_a_page_is_a_screen_long_and_links_its_example(page: str) -> None:
    text = (ROOT / "docs" / "projects" / f"{page}.md").read_text()
    assert len(text.splitlines()) <= 50
    scripts = re.findall(r"\]\(\.\./\.\./(examples/[^)]+)\)", text)
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)


@pytest.mark.parametrize("script", ["anomalib_detectors.py"])
def test_an_example_is_short(script: str) -> None:
    assert len((EXAMPLES / script).read_text().splitlines()) <= 80
