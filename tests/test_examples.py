"""The scripts in examples/ that need no package beside ours run, and say what their pages say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What a script prints, in part, as patterns.
SAYS = {
    "plain_module": ["layer2: 64 channels at stride 8", "47 of 47 tensors have gradients", "exported: True"],
    "timm_model": ["layer1: 32 channels at stride 4", "the same maps: True\nthe same maps: True"],
    "your_own_cnn": ["parameters became", "refused: inspector.safetensors: __main__:Inspector", "the same maps: True"],
    "classifier": [r"(9\d|100)% of 32 new images are told apart", "the backbone's record: finetune"],
}


@pytest.mark.parametrize("name", SAYS)
def test_runs_and_says(name: str) -> None:
    script = ROOT / "examples" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for line in SAYS[name]:
        assert re.search(line, done.stdout), done.stdout


@pytest.mark.parametrize("name", SAYS)
def test_has_a_page_of_one_screen_and_is_short(name: str) -> None:
    page = (ROOT / "docs" / "projects" / f"{name}.md").read_text()
    assert f"examples/{name}.py" in page
    assert len(page.splitlines()) <= 60
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", SAYS)
def test_the_links_of_a_page_lead_to_files(name: str) -> None:
    page = (ROOT / "docs" / "projects" / f"{name}.md").read_text()
    links = [target for target in re.findall(r"\]\(([^)]+)\)", page) if not target.startswith("https://")]
    assert links
    assert all((ROOT / "docs" / "projects" / target).resolve().is_file() for target in links)
