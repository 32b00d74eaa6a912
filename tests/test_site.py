"""The documentation site: it builds without a warning, loads nothing from elsewhere, and what it shows runs."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer
from browser import browser
from documents import options, to_be_run
from typer.testing import CliRunner

import anomaly
import compress
import prunecore_runtime
import reports
from anomaly.datasets.generated import generate
from pipelines.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RUN = [DOCS / "tutorial.md", DOCS / "edge.md", *sorted((DOCS / "how-to").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
LIBRARY = {package.__name__: package.__all__ for package in (compress, anomaly, reports, prunecore_runtime)}


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One generated surface with as many training images as quantization and recovery need."""
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    return generate(folder, seed=3, surfaces=["brushed_metal"], train=24, good=3, per_defect=1)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(
    page: Path, photographs: Path, surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its order, in one folder, as it stands there, but for the number of training steps."""
    blocks = list(to_be_run(page.read_text()))
    assert len(blocks) >= 3
    (tmp_path / "photographs").symlink_to(photographs)
    if not any(block.startswith("compress generate") for block in blocks):
        (tmp_path / "surfaces").symlink_to(surfaces)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with patch.dict(compress.METHODS):  # a page adds one
        for block in blocks:
            if "\n" in block:
                Path("block.py").write_text(re.sub(r"\bsteps=\d+", "steps=2", block))
                names = runpy.run_path("block.py", init_globals=names)
                continue
            program, *words = shlex.split(re.sub(r"--steps \d+", "--steps 2", block))
            assert program == "compress", f"{block}: say above it that the tests do not run it, and why"
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, f"{block}\n{result.output}"


def test_blocks_that_are_not_run_say_so() -> None:
    marked = "*Not run by the tests: it takes\na board.*\n\n    ssh board\n\n"
    fences = "```python\nx = 1\n\ny = 2\n```\n\n```text\n    output\n```\n"
    document = f"Text\n\n    compress a\n\n{marked}    compress b # why\n\n{fences}"
    assert list(to_be_run(document)) == ["compress a", "compress b # why", "x = 1\n\ny = 2\n"]


@pytest.mark.parametrize("name", compress.METHODS)
def test_every_method_has_its_section_equation_and_paper(name: str) -> None:
    sections = re.split(r"^## ", (DOCS / "methods.md").read_text(), flags=re.MULTILINE)
    (section,) = (section for section in sections if section.startswith(f"{name}\n"))
    assert "```math\n" in section
    assert "*Take it*" in section
    for number in re.findall(r"\d{4}\.\d{5}", compress.METHODS[name].paper):
        assert f"https://arxiv.org/abs/{number}" in section


def _hook(name: str, function: str) -> Any:
    pytest.importorskip("mkdocs", reason="no mkdocs here, which the hooks are for: the extra docs brings it")
    return runpy.run_path(str(DOCS / "hooks" / f"{name}.py"))[function]


def test_links_to_examples_lead_to_their_pages() -> None:
    turn = _hook("examples", "on_page_markdown")
    assert turn("[a](../../examples/node/a.mjs), [b](../b.md)") == "[a](../examples/node/a.mjs.md), [b](../b.md)"
    assert turn("[a](../examples/a.py), and `examples/a.py`") == "[a](examples/a.py.md), and `examples/a.py`"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    for package in ("material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(package, reason=f"no {package} here to build the site with: the extra docs brings it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = [page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")]
    assert len(pages) >= 20
    assert not [page for page in pages if not (site / page).is_file()]
    assert not (site / "hooks").exists()


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe|source|object|video|audio)\b[^>]*>", page.read_text())
        assert tags
        assert not [tag for tag in tags if re.search(r"""(?:src|href|data|srcset)=["']?(?:https?:)?//""", tag)], page
    sheets = [sheet.read_text() for sheet in site.rglob("*.css")]
    assert sheets
    assert not [found for sheet in sheets for found in re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet)]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_has_every_option_of_a_command(site: Path, command: str) -> None:
    page = (site / "reference" / "cli.html").read_text()
    (section,) = re.findall(rf'<h3 id="compress-{command}">(.*?)(?=<h[123]|</article>)', page, flags=re.DOTALL)
    shown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", re.sub(r"<[^>]+>", "", section)))
    assert {option for option in options(command) if option.startswith("-")} <= shown


@pytest.mark.parametrize("package", LIBRARY)
def test_the_reference_has_every_public_name(site: Path, package: str) -> None:
    page = (site / "reference" / f"{package}.html").read_text()
    for name in LIBRARY[package]:
        assert re.search(rf'id="{package}\.(\w+\.)?{name}"', page), name


def test_formulas_need_no_script(site: Path) -> None:
    page = (site / "methods.html").read_text()
    assert page.count("<math ") == (DOCS / "methods.md").read_text().count("```math")
    assert "<mfrac>" in page


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_site_opens_from_a_path_and_is_searched(site: Path, tmp_path: Path, width: int) -> None:
    with browser(tmp_path) as page:
        page.open(site / "methods.html", width=width)
        assert page.run("document.documentElement.scrollWidth") <= width
        page.run(
            "const field = document.querySelector('.md-search__input'); field.focus(); field.value = 'Raspberry';"
            "field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true, key: 'y'}))"
        )
        found = page.run(
            "new Promise(done => { const look = () => {"
            "const links = [...document.querySelectorAll('.md-search-result__link')].map(link => link.href);"
            "links.length ? done(links) : setTimeout(look, 50) }; look() })"
        )
        assert any("edge.html" in link for link in found)
        assert page.complaints == []
