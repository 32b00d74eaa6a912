"""The examples that put a slim backbone into other projects run with these projects, and what they make works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from peers import ROOT, node_with_peers, peers_folder, python_with_peers
from PIL import Image

import compress
from anomaly.datasets import open_dataset
from anomaly.datasets.generated import generate
from pipelines.export import export_detector
from pipelines.fit import FitSettings, fit_detector
from prunecore_runtime import Detector

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


@pytest.fixture(scope="module")
def javascript(pytestconfig: pytest.Config) -> list[str | Path]:
    node, folder = node_with_peers(peers_folder(pytestconfig))
    return [node, folder / "predict.mjs"]


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
def test_torchvision_detectors_learn(folder: Path) -> None:
    output = run(sys.executable, "torchvision_detection.py", "slim.safetensors", cwd=folder)
    losses = numbers(r"(\w+): loss (\S+) -> ([\d.]+)", output)
    assert list(losses) == ["faster_rcnn", "retina_net", "ssd_lite"]
    assert all(last < 0.8 * first for first, last in losses.values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_anomalib_trains_and_tests_on_a_slim_backbone(folder: Path, python: Path) -> None:
    output = run(python, "anomalib_detectors.py", "slim.safetensors", "surfaces", "printed_grid", cwd=folder)
    auroc = numbers(r"(\w+): image AUROC (\S+), pixel AUROC (\S+)", output)
    assert list(auroc) == ["Patchcore", "Padim", "STFPM"]
    assert auroc["Patchcore"][0] > 0.75
    assert all(pixel > 0.6 for _, pixel in auroc.values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_unet_learns_painted_defects_and_finds_others(folder: Path, python: Path) -> None:
    output = run(python, "smp_unet.py", "slim.safetensors", "surfaces", "printed_grid", cwd=folder)
    first, last = (loss for (loss,) in numbers(r"step (\d+): loss (\S+)", output).values())
    assert last < first - 0.1
    ((auroc,),) = numbers(r"(pixel AUROC) (\S+)", output).values()
    assert auroc > 0.7


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_javascript_scores_as_python_does(folder: Path, javascript: list[str | Path]) -> None:
    (grid,) = open_dataset(str(folder / "surfaces"), cache=folder)
    slim = compress.load_backbone(folder / "slim.safetensors")
    fitted = fit_detector(slim, grid, FitSettings(bank_size=60, quantile=0.8), command="compress fit")
    model = folder / "grid.onnx"
    export_detector(fitted, model)
    files = [str(sample.image) for sample in grid.test]
    wide = folder / "wide.png"  # with an alpha channel, and not square
    Image.open(files[0]).convert("RGBA").resize((300, 256)).save(wide)
    done = subprocess.run([*javascript, model, *files, wide], capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in found] == [*files, str(wide)]

    detector = Detector(model)
    wanted = detector.predict([Image.open(file).convert("RGB") for file in (*files, wide)])
    span = np.ptp(wanted.scores)
    scores = np.array([line["score"] for line in found])
    assert np.abs(scores - wanted.scores)[:-1].max() < 1e-3 * span
    assert abs(scores[-1] - wanted.scores[-1]) < 0.05 * span  # resized in the graph, and not by Pillow
    assert [line["defective"] for line in found][:-1] == wanted.defective.tolist()[:-1]
    for line, heat in zip(found[:-1], wanted.maps, strict=False):
        x, y = line["hottest"]
        assert heat[y, x] == pytest.approx(heat.max(), rel=1e-3)


@pytest.mark.slow
def test_javascript_without_arguments_tells_its_use(javascript: list[str | Path]) -> None:
    done = subprocess.run(javascript, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: node predict.mjs")


@pytest.mark.parametrize("page", ["anomalib", "node", "segmentation", "torchvision_detection"])
def test_a_page_is_a_screen_long_and_links_its_example(page: str) -> None:
    text = (ROOT / "docs" / "projects" / f"{page}.md").read_text()
    assert len(text.splitlines()) <= 50
    scripts = re.findall(r"\]\(\.\./\.\./(examples/[^)]+)\)", text)
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)


@pytest.mark.parametrize(
    "script", ["torchvision_detection.py", "anomalib_detectors.py", "smp_unet.py", "node/predict.mjs"]
)
def test_an_example_is_short(script: str) -> None:
    assert len((EXAMPLES / script).read_text().splitlines()) <= 80
