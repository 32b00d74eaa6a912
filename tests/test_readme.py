"""README and docs tell the truth: code runs, commands and refusals exist, numbers are the results'."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shlex
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import typer
from documents import commands, examples, options
from PIL import Image
from typer.testing import CliRunner

import compress
from compress.training.optimizer import REST
from compress.training.training_set import HELD_OUT
from pipelines.cli import app
from reports import Run, render

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PRUNING, QUANTIZATION, DETECTOR, REPORT = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("pruning", "quantization", "detector", "report")
)
RESULTS = ROOT / "docs" / "results" / "magnetic_tile_recovery"
METHODS = ROOT / "docs" / "results" / "magnetic_tile_methods"
LONG = ROOT / "docs" / "results" / "magnetic_tile_long"
ELSEWHERE = ROOT / "docs" / "results" / "other_datasets"
STAGE = ROOT / "docs" / "results" / "magnetic_tile_stage"
FRESH = ROOT / "docs" / "results" / "fresh_weights"
SIX = ("magnitude", "batch_norm", "growing_reg", "layer_adaptive", "group_norm", "lcp")
BEFORE_RECOVERY = ROOT / "docs" / "results" / "magnetic_tile"
NUMBERS = ("params_full", "params_used", "macs_full", "macs_used")


def _rows(results: Path, table: str = "results.csv") -> list[dict[str, object]]:
    with (results / table).open(newline="") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _mean(rows: Iterable[dict[str, object]], metric: str) -> float:
    return fmean(float(str(row[metric])) for row in rows)


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text or None


def _refusals() -> list[tuple[str, str]]:
    blocks = re.findall(r"^    \$ compress (.*)\n((?:    .+\n)+)", PRUNING, flags=re.MULTILINE)
    return [(command, " ".join(message.split())) for command, message in blocks]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photographs`, 24 of them, and `few`, 12."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, count in (("photographs", 24), ("few", 12)):
        (folder / name).mkdir()
        for index in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            coarse.resize((96, 64)).save(folder / name / f"{index:02}.jpg")
    return folder


def test_the_library_example_runs(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (example for example in examples(README) if "PatchCore" in example)
    (tmp_path / "surfaces").symlink_to(tiny_dataset)
    (tmp_path / "example.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path("example.py")
    assert names["slim"].feature_info.channels() == [89, 179]
    assert len(names["detector"].bank) == 47


@pytest.mark.parametrize("document", [README, PRUNING], ids=["README", "pruning"])
def test_the_example_of_recovery_runs(
    document: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = (example for example in examples(document) if "distill" in example)
    assert code.count("steps=1500") == 1
    (tmp_path / "example.py").write_text(code.replace("steps=1500", "steps=2"))  # which is all that differs
    (tmp_path / "photographs").symlink_to(photographs / "photographs")
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path("example.py")
    made = names.get("better", names["slim"])
    assert (made.spec.pruning.recover, made.spec.pruning.recover_steps) == ("distill", 2)
    assert compress.cost_of(made).params_used < compress.cost_of(names["net"]).params_used


@pytest.mark.parametrize(
    ("document", "least"),
    [(README, 8), (PRUNING, 8), (QUANTIZATION, 5), (DETECTOR, 3), (REPORT, 5)],
    ids=["README", "pruning", "quantization", "detector", "report"],
)
def test_every_command_and_option_exists(document: str, least: int) -> None:
    typed = commands(document)
    assert len(typed) >= least
    for name, *words in typed:
        if name.isupper():  # a placeholder
            continue
        assert options(name).issuperset(word for word in words if word.startswith("-")), (name, words)
    for name in {name for name, *_ in typed if not name.isupper()}:
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_the_options_of_predict_are_seen() -> None:
    assert {"--save-maps", "--batch", "--threads"} <= options("predict")
    assert "--ratio" not in options("predict")


@pytest.mark.parametrize(("document", "least"), [(PRUNING, 15), (QUANTIZATION, 8)], ids=["pruning", "quantization"])
def test_every_option_that_the_text_names_exists(document: str, least: int) -> None:
    known = {option for name in typer.main.get_command(app).commands for option in options(name)}
    named = set(re.findall(r"`(--[a-z-]+)", document))
    assert len(named) >= least
    assert known.issuperset(named), named - known


@pytest.mark.parametrize(("command", "message"), _refusals(), ids=[command for command, _ in _refusals()])
def test_refusals_read_as_told(command: str, message: str, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photographs)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 2
    assert " ".join(result.stderr.split()) == f"compress: {message}"


def test_the_recipe_is_as_told() -> None:
    told = " ".join(PRUNING.split("### How it trains")[1].split("## In Python")[0].split())
    recipe = compress.RECOVERIES["distill"].recipe
    least, most = (round(100 * share) for share in recipe.area)
    assert f"peak rate {recipe.lr} (a step is that share of the weight; AdamW takes {REST} of it" in told
    assert f"{recipe.warm_up} steps of warm-up" in told
    assert f"batches of {recipe.batch} random crops ({least} to {most} % of the area" in told
    assert f"at {recipe.crop} pixels" in told
    assert f"{compress.RECOVERIES['distill'].steps:,} steps" in told
    assert f"the last {recipe.frozen_norms:.0%} of the steps".replace("%", " %") in told
    assert f"{recipe.holdout:.0%}".replace("%", " %") + " of the images (8 to 64) are held out" in told
    assert f"Every {recipe.check_every} steps" in told
    assert f"finetune`: {compress.RECOVERIES['finetune'].recipe.lr:.0e}".replace("e-0", "e-") in told
    assert (recipe.optimizer, recipe.patience, HELD_OUT) == ("relative_muon", 10, (8, 64))


def test_methods_recoveries_and_fields_of_the_record_are_all_described() -> None:
    fields = compress.backbone.Pruning.__dataclass_fields__
    for name in (*compress.METHODS, *compress.RECOVERIES, *fields):
        assert f"`{name}`" in PRUNING, name


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "docs/pruning.md",
        "docs/quantization.md",
        "docs/sweeps.md",
        "docs/bundled_weights.md",
        "CONTRIBUTING.md",
    ],
)
def test_every_link_and_picture_is_there(file: str) -> None:
    page = ROOT / file
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert targets
    for target in targets:
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            other = page.parent / path if path else page
            assert other.is_file(), target
            assert not anchor or anchor in _anchors(other), target


def _table(name: str) -> str:
    """README's table between the comments of that name."""
    (block,) = re.findall(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", README, flags=re.DOTALL)
    return str(block)


def _lines(name: str) -> list[list[str]]:
    """The cells of that table, line by line, its head first."""
    head, _, *lines = ([cell.strip(" `") for cell in line.split("|")[1:-1]] for line in _table(name).splitlines())
    return [head, *lines]


def test_the_table_is_made_of_the_results_beside_it() -> None:
    block = _table("results")
    rows = _rows(RESULTS)
    assert len(rows) == 16
    report = render([Run(row) for row in rows], [], "")["report.md"].decode()
    assert block.strip() in report
    assert block.strip() in (RESULTS / "report.md").read_text()


def _of_methods(name: str) -> dict[tuple[str, float], str]:
    """The cells of README's table `name`, by method and ratio."""
    head, *lines = _lines(name)
    assert sorted(method for method, *_ in lines) == sorted(SIX)
    return {
        (method, float(ratio)): cell for method, *cells in lines for ratio, cell in zip(head[1:], cells, strict=True)
    }


def _auroc(results: Path, method: str, ratio: float, **wanted: str) -> str:
    """As README tells it: the mean over categories."""
    found = [
        row
        for row in _rows(results)
        if (row["method"], row["ratio"]) == (method, ratio) and all(row[key] == value for key, value in wanted.items())
    ]
    assert found, (method, ratio, wanted)
    return f"{_mean(found, 'image_auroc'):.3f}"


def test_the_tables_of_methods_are_made_of_the_results_beside_them() -> None:
    recovered, cut, elsewhere = (_of_methods(name) for name in ("methods", "cuts", "others"))
    assert sorted({ratio for _, ratio in recovered}) == [each / 10 for each in range(1, 10)]
    for (method, ratio), cell in recovered.items():
        kinds = [_auroc(METHODS, method, ratio, recover="distill", precision=each) for each in ("fp32", "int8")]
        assert cell == " / ".join(kinds), (method, ratio)
    for (method, ratio), cell in cut.items():
        assert cell == _auroc(METHODS, method, ratio, recover="none", precision="fp32"), (method, ratio)
    for (method, ratio), cell in elsewhere.items():
        kinds = [_auroc(ELSEWHERE, method, ratio, dataset=each) for each in ("elpv", "generated")]
        assert cell == " / ".join(kinds), (method, ratio)


def test_what_fresh_weights_reach_is_made_of_the_results_beside_it() -> None:
    (sentence,) = re.findall(r"reinit\+distill`\), (reach .*?) \(\[every", " ".join(README.split()))
    fresh, inherited = (
        [_auroc(FRESH, "lcp", ratio, recover=recover) for ratio in (0.3, 0.5, 0.7)]
        for recover in ("reinit+distill", "distill")
    )
    assert re.findall(r"0\.\d{3}", sentence) == fresh + inherited


def test_the_table_of_longer_recovery_is_made_of_the_results_beside_it() -> None:
    short, long = ([row for row in _rows(results) if row["precision"] == "fp32"] for results in (RESULTS, LONG))

    def mean(rows: list[dict[str, object]], metric: str, ratio: float, seeds: set[object]) -> float:
        return _mean((row for row in rows if row["ratio"] == ratio and row["seed"] in seeds), metric)

    for told, photographs, with_tiles, lost, _ in _lines("long")[1:]:
        ratio = float(told)
        seeds = {row["seed"] for row in long if row["ratio"] == ratio}
        for cell, rows, counted in (
            (photographs, short, {0, 1}),
            (with_tiles.removesuffix(" (one seed)"), long, seeds),
        ):
            assert cell == " / ".join(f"{mean(rows, m, ratio, counted):.3f}" for m in ("image_auroc", "pixel_auroc"))
        assert with_tiles.endswith(" (one seed)") == (len(seeds) == 1)
        assert lost == f"{mean(long, 'image_auroc', 0, seeds) - mean(long, 'image_auroc', ratio, seeds):.3f}"


def test_the_table_of_scope_stage_is_made_of_the_draws_beside_it() -> None:
    draws = _rows(STAGE, "draws.csv")
    artifacts = list(dict.fromkeys(draw["artifact"] for draw in draws))
    lines = _lines("stage")[1:]
    assert [seed for seed, *_ in lines] == ["0", "1", "2", "3", "mean"]
    for seed, *cells in lines:
        for artifact, cell in zip(artifacts, cells, strict=True):
            own = [draw for draw in draws if draw["artifact"] == artifact and seed in (str(draw["seed"]), "mean")]
            assert cell == " / ".join(f"{_mean(own, metric):.3f}" for metric in ("image_auroc", "pixel_auroc", "aupro"))
    drawn = {(draw["artifact"], draw["seed"]): draw["image_auroc"] for draw in draws}
    swept = {}
    for row in _rows(STAGE):
        artifact = "dense" if row["method"] == "none" else f"resnet18-lcp-{row['ratio']}-distill-s{row['seed']}"
        swept[artifact, row["seed"]] = row["image_auroc"]
    assert set(swept) == {("dense", 0), ("dense", 1)} | {(name, int(str(name)[-1])) for name in artifacts[1:]}
    assert swept == {place: drawn[place] for place in swept}


def test_the_table_of_scope_stage_on_other_data_is_made_of_the_scores_beside_it() -> None:
    scored = _rows(STAGE, "other_data.csv")
    artifacts = list(dict.fromkeys(row["artifact"] for row in scored))
    for dataset, (_, *cells) in zip(("elpv", "generated"), _lines("stage-others")[1:], strict=True):
        for artifact, cell in zip(artifacts, cells, strict=True):
            own = [row for row in scored if (row["artifact"], row["dataset"]) == (artifact, dataset)]
            assert cell == f"{_mean(own, 'image_auroc'):.3f}"


@pytest.mark.parametrize(
    "row",
    [row for row in _rows(BEFORE_RECOVERY) + _rows(RESULTS) if row["seed"] == 0],
    ids=lambda row: f"{row['method']}-{row['ratio']}-{row['recover']}-{row['precision']}",
)
def test_sizes_in_the_tables_are_recomputed(row: dict[str, object]) -> None:
    backbone = compress.create_backbone(str(row["arch"]), weights="none")
    if row["method"] != "none":
        # A local cut takes as many channels whatever the method ranks by.
        backbone = compress.prune(backbone, ratio=float(str(row["ratio"])), method="magnitude")
    cost = compress.cost_of(backbone)
    assert [getattr(cost, name) for name in NUMBERS] == [row[name] for name in NUMBERS]
