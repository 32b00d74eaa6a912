"""`compress compare` and the formats of `compress report`: on rows, on folders, on backbones judged now."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from report_rows import ORIGIN, example_images, half, run
from typer.testing import CliRunner

import compress
from anomaly import open_dataset
from pipelines.cli import app
from pipelines.evaluate import DetectorSettings, evaluate
from pipelines.evidence import Evidence
from pipelines.results import Row, failure_of, is_finished, read_results, read_rows, write_result, write_rows
from reports import ReportError, Run, Scores, render, small_maps
from reports.comparison import compare_runs, comparison_json, comparison_markdown, comparison_table
from reports.curves import KINDS, curves_of

ARCH = "mobilenet_v3_small"


def scores(first: list[float], *, seen: str = "a") -> Scores:
    """Images of which every second one is defective."""
    labels = np.arange(len(first)) % 2 == 1
    names = [f"{seen}/{index}.png" for index in range(len(first))]
    maps = np.zeros((len(first), 2, 2), np.uint8)
    return Scores(names, labels, np.array(first, np.float32), maps, 0.0, 1.0, None)


@pytest.fixture(scope="module")
def rows(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense and a pruned network on two surfaces, as `compress evaluate -o` leaves them."""
    folder = tmp_path_factory.mktemp("rows")
    dense = compress.create_backbone(ARCH, weights="none")
    categories = open_dataset(str(tiny_dataset), cache=tiny_dataset)
    for name, backbone in (("dense", dense), ("slim", compress.prune(dense, ratio=0.5))):
        made = [evaluate(backbone, each, DetectorSettings(bank_size=20), command="") for each in categories]
        write_rows(folder / f"{name}.json", made)
    return folder


def invoke(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def test_evaluate_leaves_its_scores_beside_its_rows(rows: Path) -> None:
    assert {file.name for file in rows.iterdir()} == {
        f"{name}{end}" for name in ("dense", "slim") for end in (".json", ".0.npz", ".1.npz")
    }
    runs, left_out = read_results(rows)
    assert not left_out
    assert len(runs) == 4
    for each in runs:
        assert each.scores is not None
        assert each.examples is not None
        assert set(each.examples.names) <= set(each.scores.names)
        assert each.scores.maps.shape[1:] == (28, 28)
        name = each.examples.names[0]
        small, whole = each.scores.map_of(name), each.examples.maps[0]
        means = whole.reshape(28, 8, 28, 8).mean((1, 3))
        assert np.abs(small - means).max() <= (each.scores.high - each.scores.low) / 255
        area = np.trapezoid(curves_of([each])["pixel_roc"], KINDS[2].x)
        assert area == pytest.approx(each.row["pixel_auroc"], abs=0.005)


def test_rows_are_compared_with_their_interval(rows: Path, tmp_path: Path) -> None:
    words = ("compare", str(rows / "dense.json"), str(rows / "slim.json"), "--resamples", "200")
    code, shown, _ = invoke(*words, "-o", str(tmp_path / "both.md"))
    assert code == 0
    assert "dense" in shown
    assert "200 paired resamples" in " ".join(shown.split())
    assert "| image AUROC |" in (tmp_path / "both.md").read_text()
    code, shown, _ = invoke(*words, "--json")
    told = json.loads(shown)
    assert told["image_auroc"]["low"] <= told["image_auroc"]["difference"] <= told["image_auroc"]["high"]
    assert set(told["categories"]) == {"woven_fabric", "printed_grid"}
    dense, slim = (read_rows(rows / f"{name}.json")[0] for name in ("dense", "slim"))
    means = [np.mean([each.row["image_auroc"] for each in side]) for side in (dense, slim)]
    assert told["image_auroc"]["difference"] == pytest.approx(means[1] - means[0])
    assert told["quantities"]["params_used"]["second"] < told["quantities"]["params_used"]["first"]


def test_backbones_are_judged_and_compared(tiny_dataset: Path, tmp_path: Path) -> None:
    slim = tmp_path / "slim.safetensors"
    dense = compress.create_backbone(ARCH, weights="none")
    compress.save(compress.prune(dense, ratio=0.5), slim)
    words = ("--dataset", str(tiny_dataset), "--category", "woven_fabric", "--weights", "none", "--bank-size", "20")
    code, shown, complaint = invoke("compare", ARCH, str(slim), *words, "--json")
    assert code == 0, complaint
    assert json.loads(shown)["image_auroc"]["images"] == len(
        open_dataset(str(tiny_dataset), cache=tiny_dataset, only=("woven_fabric",))[0].test
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{rows}", "{rows}"), "holds 2 settings, of which one can be compared: name a row's own file"),
        ((ARCH, "{rows}/slim.json"), "is no row of results: name a --dataset"),
        (("{rows}/dense.json", "{rows}/slim.json", "--dataset", "generated"), "both are results already"),
        (
            ("{rows}/dense.json", "{rows}/slim.json", "--bank-size", "9"),
            "both are results already: leave --bank-size out",
        ),
        (("{rows}/nowhere.json", "{rows}/slim.json"), "holds no row of results"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(words: tuple[str, ...], message: str, rows: Path) -> None:
    code, _, complaint = invoke("compare", *(word.format(rows=rows) for word in words))
    assert code == 2
    assert message in complaint


def test_other_images_are_not_paired() -> None:
    one = Run(ORIGIN, None, scores([0.1, 0.9, 0.2, 0.8]))
    other = dataclasses.replace(half(), scores=scores([0.1, 0.9, 0.2, 0.8], seen="b"))
    found = compare_runs([one], [other], ("A", "B"))
    assert found.difference is None
    assert "not known" in found.verdict
    with pytest.raises(ReportError, match="other images of a"):
        compare_runs([one], [half(data_fingerprint="sha256:cd")], ("A", "B"))
    with pytest.raises(ReportError, match="no category in common"):
        compare_runs([one], [half(category="b")], ("A", "B"))


def test_a_clear_difference_is_named_and_a_tie_is_one() -> None:
    right, wrong = [0.0, 1.0] * 15, [1.0, 0.0] * 15
    better = compare_runs(
        [Run(ORIGIN | {"image_auroc": 0.0}, None, scores(wrong))],
        [Run(ORIGIN | {"image_auroc": 1.0}, None, scores(right))],
        ("A", "B"),
    )
    assert better.difference is not None
    assert better.difference.value == 1.0
    assert better.verdict.endswith("B is better.")
    same = compare_runs([Run(ORIGIN, None, scores(right))], [half(image_auroc=0.95)], ("A", "B"))
    assert same.difference is None
    twin = compare_runs([Run(ORIGIN, None, scores(right))], [Run(ORIGIN, None, scores(right))], ("A", "B"))
    assert "a tie" in twin.verdict
    assert comparison_table(twin).headers == ["", "A", "B", "difference", "95 % interval"]


def test_what_ties_in_the_report_ties_in_compare_and_cautions_are_told() -> None:
    right, wrong = scores([0.0, 1.0] * 15), scores([1.0, 0.0] * 15)
    seeds = enumerate((wrong, right))
    first = [Run(ORIGIN | {"image_auroc": float(seed), "seed": seed}, None, each) for seed, each in seeds]
    second = [dataclasses.replace(half(image_auroc=1.0, bank_size=9), scores=right)]
    found = compare_runs(first, second, ("A", "B"))
    assert found.difference is not None
    assert not found.difference.tie  # the images alone would call a winner
    assert found.tie()
    assert found.verdict.endswith("a tie: seeds differ as much.")
    assert comparison_json(found)["image_auroc"]["tie"]
    (row,) = [row for row in comparison_table(found).rows if row[0] == "image AUROC"]
    assert row[-1].endswith(", a tie")
    assert any("memory banks of different sizes (1568, 9)" in told for told in found.cautions)
    assert "memory banks" in comparison_markdown(found, "x")


def test_a_category_that_cannot_be_paired_leaves_no_interval_of_the_rest() -> None:
    shown = scores([0.0, 1.0] * 15)
    sides = [[Run(row, None, shown), Run(row | {"category": "b"})] for row in (ORIGIN, half().row)]
    found = compare_runs(*sides, ("A", "B"))
    assert found.difference is None
    assert found.per_category["a"] is not None
    assert "not known" in found.verdict


def test_a_difference_within_its_noise_is_a_tie_in_the_report() -> None:
    rng = np.random.default_rng(0)
    first = (rng.normal(size=60) + np.arange(60) % 2).tolist()
    second = (np.array(first) + rng.normal(scale=0.1, size=60)).tolist()
    near = dataclasses.replace(half(image_auroc=0.945), scores=scores(second))
    files = render([Run(ORIGIN, None, scores(first)), near], [], "x")
    assert "0.945 (-0.005, a tie)" in files["report.md"].decode()
    assert "A tie is a difference within its noise" in files["report.md"].decode()
    assert "tie" not in render([run(), half(image_auroc=0.945)], [], "x")["report.md"].decode()  # nothing is known


def test_seeds_that_differ_as_much_make_a_tie() -> None:
    def told(*values: float) -> str:
        pruned = [half(image_auroc=value, seed=seed) for seed, value in enumerate(values)]
        return render([run(), run(seed=1), *pruned], [], "x")["report.md"].decode()

    # pooled deviation of (0, 0.0141) is 0.01; t(2) = 4.303; times sqrt(1/2 + 1/2): 0.043
    assert "0.940 (-0.010, a tie, ±0.014)" in told(0.95, 0.93)
    assert "0.900 (-0.050, ±0.014)" in told(0.91, 0.89)


def test_formats_are_chosen(rows: Path, tmp_path: Path) -> None:
    code, _, complaint = invoke("report", str(rows), "-o", str(tmp_path / "a"), "--format", "csv,latex,svg")
    assert code == 0, complaint
    written = {str(file.relative_to(tmp_path / "a")) for file in (tmp_path / "a").rglob("*.*")}
    assert {"results.csv", "results.tex", "figures/curves.svg"} <= written
    assert not {name for name in written if name.endswith((".html", ".png", ".md"))}
    code, _, complaint = invoke("report", str(rows), "-o", str(tmp_path / "b"), "--format", "docx")
    assert (code, "format docx: choose from html, markdown" in complaint) == (2, True)


def test_latex_is_escaped_and_has_a_row_for_each_setting() -> None:
    told = render(
        [run(), half(method="group_norm"), half(method="a&b", seed=1), run(arch="[x]")], [], "x", formats=["latex"]
    )
    text = told["results.tex"].decode()
    assert r"\toprule" in text
    assert r"group\_norm" in text
    assert r"a\&b" in text
    assert text.count(r" \\") == 5
    assert "    {[}x] & " in text  # else an argument of what ends the row before it
    cells = {line.count(" & ") for line in text.splitlines() if line.endswith(r"\\")}
    assert len(cells) == 1


def test_parquet_holds_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = [run(extra={"a": 1}, note=1, **{"\ud800": 1}), half(note="text", aupro=None)]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ReportError, match=r"prunecore\[parquet\]"):
        render(mixed, [], "x", formats=["parquet"])
    monkeypatch.undo()
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    from pyarrow import parquet

    table = parquet.read_table(pyarrow.BufferReader(render(mixed, [], "x", formats=["parquet"])["results.parquet"]))
    assert table["image_auroc"].to_pylist() == [0.95, 0.94]
    assert table["aupro"].to_pylist() == [0.6, None]
    assert table["params_full"].type == pyarrow.int64()
    assert table["\\ud800"].to_pylist() == [1, None]
    assert table["note"].to_pylist() == ["1", '"text"']


def test_a_row_never_stands_beside_another_runs_scores(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row, evidence), *_ = [
        (Row(**each.row), Evidence(each.examples, each.scores)) for each in read_rows(rows / "dense.json")[0]
    ]
    write_result(tmp_path, "one", row, evidence, "before")
    assert is_finished(tmp_path, "one", "before")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("compress.files.os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            write_result(tmp_path, "one", row, evidence, "after")
    assert not (tmp_path / "one.json").exists()
    write_result(tmp_path, "one", row, evidence, "after")
    assert is_finished(tmp_path, "one", "after")


@pytest.mark.timeout(20)
def test_nobody_waits_for_a_pipe_among_the_results(rows: Path, tmp_path: Path) -> None:
    shutil.copy(rows / "dense.json", tmp_path)
    for name in ("pipe.json", "lost.failed.json"):
        os.mkfifo(tmp_path / name)
    runs, left_out = read_results(tmp_path)
    assert len(runs) == 2
    assert [name for name, _ in left_out] == ["lost.failed.json", "pipe.json"]
    assert "is a pipe" in left_out[1][1]
    assert not is_finished(tmp_path, "pipe", "key")
    assert failure_of(tmp_path, "lost", "key") is None


def test_small_maps_are_means_of_blocks() -> None:
    maps = np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4)
    small, low, high = small_maps(maps, side=2)
    assert small.shape == (2, 2, 2)
    assert (low, high) == (2.5, 28.5)  # mean of 0, 1, 4, 5 and of 26, 27, 30, 31
    assert small[0, 0, 0] == 0
    assert small[1, 1, 1] == 255
    flat, _, _ = small_maps(np.ones((1, 4, 4), np.float32), side=2)
    assert not flat.any()


def test_cases_lead_the_strips_and_small_maps_fill_in() -> None:
    shown = example_images(names=["a/1.png", "a/0.png"])  # of `scores`: defective, good
    other = dataclasses.replace(
        half(), examples=example_images(names=["a/3.png", "a/0.png"]), scores=scores([0.2, 0.9])
    )
    first = Run(ORIGIN, shown, scores([0.2, 0.9]))
    page = render([first, other], [], "x", formats=["html"])["index.html"].decode()
    assert "<b>best case</b>" in page
    assert "<b>false alarm</b>" in page
    assert "heat map of resnet18 magnitude 0.5 on a/1.png" in page  # from its small map
    assert "a/3.png" not in page  # a case of the other run alone
