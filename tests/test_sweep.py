"""Sweeps: what is run, what is kept, and that a kill, a failure or a damaged file loses one run at most."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import compress
from anomaly import DATASETS, AnomalyError, Category, open_dataset
from compress import CompressError
from pipelines import sweep_runs, sweep_worker
from pipelines.evaluate import DetectorSettings, evaluate
from pipelines.evidence import read_evidence
from pipelines.results import Row, read_results, write_failure
from pipelines.sweep import SweepOutcome, sweep
from pipelines.sweep_plan import SweepPlan
from reports import render

ARCH = "mobilenet_v3_small"


@pytest.fixture
def plan(tiny_dataset: Path) -> SweepPlan:
    return SweepPlan(
        archs=(ARCH,), ratios=(0.0, 0.5), datasets=(str(tiny_dataset),), categories=("woven_fabric",), weights="none"
    )


def test_lists_that_multiply_without_end_are_refused() -> None:
    every = tuple(number / 5000 for number in range(5000))
    with pytest.raises(CompressError, match="the sweep asks for 25,000,000 runs, the limit is 100,000: split it"):
        SweepPlan(ratios=every, seeds=tuple(range(5000)))


def _rows(folder: Path) -> dict[str, dict[str, object]]:
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def test_a_sweep_leaves_rows_pictures_and_backbones(plan: SweepPlan, tmp_path: Path) -> None:
    assert sweep(plan, tmp_path, command="compress sweep") == SweepOutcome(run=2, kept=0, failed=0)
    rows = _rows(tmp_path)
    assert set(rows) == {
        "mobilenet_v3_small-dense-s0-tiny-woven_fabric",
        "mobilenet_v3_small-magnitude-0.5-s0-tiny-woven_fabric",
    }
    dense, slim = (rows[name] for name in sorted(rows))
    assert (dense["method"], dense["ratio"], slim["method"], slim["ratio"]) == ("none", 0.0, "magnitude", 0.5)
    for row in rows.values():
        assert {field.name for field in dataclasses.fields(Row)} <= row.keys()
        assert 0 <= row["image_auroc"] <= 1  # type: ignore[operator]
        assert row["ms_total"] > 0  # type: ignore[operator]
        assert row["bank_size"] == 47  # 1 % of 6 x 784
        assert len(str(row["data_fingerprint"])) == 64
    backbone = compress.load_backbone(tmp_path / "backbones" / "mobilenet_v3_small-magnitude-0.5-s0.safetensors")
    assert compress.cost_of(backbone).params_used == slim["params_used"]
    runs, failures = read_results(tmp_path)
    assert not failures
    examples = runs[0].examples
    assert examples is not None
    assert examples.masks is not None
    assert examples.images.shape[1:] == (224, 224, 3)
    assert "good" in examples.kinds
    assert examples.low < examples.high


def test_a_second_sweep_runs_nothing_again(plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(plan, tmp_path, command="compress sweep")
    before = _rows(tmp_path)
    monkeypatch.setattr(sweep_worker, "evaluate", _never)
    assert sweep(plan, tmp_path, command="again") == SweepOutcome(run=0, kept=2, failed=0)
    assert _rows(tmp_path) == before


def _never(*arguments: object, **options: object) -> None:
    raise AssertionError("a finished run was run again")


@pytest.mark.parametrize("change", [{"coreset": 0.02}, {"bank_size": 5}, {"seeds": (1,)}, {"taps": ("features.3",)}])
def test_other_settings_are_other_runs(plan: SweepPlan, tmp_path: Path, change: dict[str, object]) -> None:
    quick = dataclasses.replace(plan, ratios=(0.0,), timing=False)
    sweep(quick, tmp_path, command="")
    assert sweep(dataclasses.replace(quick, **change), tmp_path, command="").run == 1  # type: ignore[arg-type]


def test_an_interrupted_sweep_goes_on_where_it_stopped(
    plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tmp_path / "reference"
    sweep(plan, reference, command="")
    calls = []

    def killed_at_the_second(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sweep_worker, "evaluate", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            sweep(plan, tmp_path / "runs", command="")
    assert len(_rows(tmp_path / "runs")) == 1
    assert sweep(plan, tmp_path / "runs", command="") == SweepOutcome(run=1, kept=1, failed=0)
    for name, row in _rows(reference).items():
        other = _rows(tmp_path / "runs")[name]
        metrics = ("image_auroc", "image_f1", "pixel_auroc", "pixel_f1", "aupro")
        assert [row[metric] for metric in metrics] == [other[metric] for metric in metrics]


def test_a_damaged_row_or_backbone_is_made_again(plan: SweepPlan, tmp_path: Path) -> None:
    sweep(plan, tmp_path, command="")
    row = tmp_path / "mobilenet_v3_small-magnitude-0.5-s0-tiny-woven_fabric.json"
    row.write_text(row.read_text()[:50])
    backbone = tmp_path / "backbones" / "mobilenet_v3_small-magnitude-0.5-s0.safetensors"
    backbone.write_bytes(backbone.read_bytes()[:500])
    assert sweep(plan, tmp_path, command="") == SweepOutcome(run=1, kept=1, failed=0)
    assert compress.load_backbone(backbone).feature_info.channels() == [12, 24]


def test_a_refused_run_is_recorded_and_the_rest_goes_on(plan: SweepPlan, tmp_path: Path) -> None:
    too_much = dataclasses.replace(plan, ratios=(0.0, 0.5, 0.95), timing=False)
    assert sweep(too_much, tmp_path, command="") == SweepOutcome(run=2, kept=0, failed=1)
    runs, failures = read_results(tmp_path)
    assert len(runs) == 2
    ((name, reason),) = failures
    assert name == "mobilenet_v3_small-magnitude-0.95-s0-tiny-woven_fabric"
    assert "largest ratio that leaves one" in reason


def test_what_failed_under_other_settings_is_forgotten_once_these_are_asked_for_again(
    plan: SweepPlan, tmp_path: Path
) -> None:
    plan = dataclasses.replace(plan, ratios=(0.0,))
    sweep(plan, tmp_path, command="")
    write_failure(tmp_path, "mobilenet_v3_small-dense-s0-tiny-woven_fabric", "too large a bank", "another key")
    assert len(read_results(tmp_path)[1]) == 1, "the latest that was asked for failed"
    assert sweep(plan, tmp_path, command="") == SweepOutcome(run=0, kept=1, failed=0)
    runs, failures = read_results(tmp_path)
    assert (len(runs), failures) == (1, [])


def test_what_is_asked_for_twice_is_run_once() -> None:
    twice = ("magnitude",) * 2
    plan = SweepPlan(methods=twice, recovers=("none", "none"), ratios=(0.5, 0.5), seeds=(0, 0, 1))
    assert (plan.methods, plan.recovers, plan.ratios, plan.seeds) == (("magnitude",), ("none",), (0.5,), (0, 1))
    assert len(plan.slimmings()) == 1


def test_the_origin_is_run_once_for_all_methods() -> None:
    plan = SweepPlan(methods=("magnitude", "random"), ratios=(0.5, 0.0, 0.3))
    made = [s and (s.method, s.ratio) for s in plan.slimmings()]
    assert made == [
        None,
        ("magnitude", 0.3),
        ("magnitude", 0.5),
        ("random", 0.3),
        ("random", 0.5),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"archs": ()}, "no archs"),
        ({"archs": ("resnet19",)}, "did you mean resnet18"),
        ({"archs": ("slim.safetensors",)}, "is a file"),
        ({"methods": ("magnitud",)}, "did you mean magnitude"),
        ({"methods": ("magnitud",), "ratios": (0.0,)}, "did you mean magnitude"),
        ({"coreset": 5.0}, r"coreset ratio 5\.0 is outside"),
        ({"seeds": (-1,)}, "seed -1 is outside"),
        ({"ratios": (0.5, 1.0)}, r"ratio 1\.0 is outside"),
    ],
)
def test_plans_that_cannot_run_are_refused_at_once(given: dict[str, object], message: str) -> None:
    with pytest.raises((CompressError, AnomalyError), match=message):
        SweepPlan(**given)  # type: ignore[arg-type]


def test_a_plan_out_of_toml(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text('archs = "resnet34"\nratios = [0, 0.5]\nseeds = [1, 2]\nbank_size = 100\ntiming = false\n')
    plan = SweepPlan.from_toml(file)
    assert plan == SweepPlan(archs=("resnet34",), ratios=(0.0, 0.5), seeds=(1, 2), bank_size=100, timing=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratio = [0.5]", "unknown key 'ratio': did you mean ratios"),
        ("ratios = [0.5", "is no TOML"),
        ('ratios = ["half"]', "a list of float is needed"),
        ("coreset = 'small'", "float is needed"),
        ("bank_size = 1.5", "int is needed"),
        ("timing = 3", "bool is needed"),
        (f"a{'.a' * 2000} = 1", "dots in a line"),
        (f"ratios = [1{'0' * 400}]", "no float is so large"),
        (f"coreset = 1{'0' * 400}", "no float is so large"),
        (f'memory = "{"9" * 400}G"', "is no amount"),
    ],
)
def test_toml_that_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(CompressError, match=message):
        SweepPlan.from_toml(tmp_path / "sweep.toml")


def test_toml_that_is_a_pipe_or_nested_without_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sweep.toml")
    with pytest.raises(CompressError, match="is a pipe: name a file"):
        SweepPlan.from_toml(tmp_path / "sweep.toml")
    (tmp_path / "nest.toml").write_text("archs = " + "[" * 50_000)
    with pytest.raises(CompressError, match=r"nest\.toml is no TOML"):
        SweepPlan.from_toml(tmp_path / "nest.toml")


def test_a_missing_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"cannot read .*none\.toml"):
        SweepPlan.from_toml(tmp_path / "none.toml")


def test_a_place_that_cannot_be_written_is_refused(plan: SweepPlan, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(CompressError, match="cannot write results"):
        sweep(plan, tmp_path / "runs", command="")


def test_results_that_are_none_are_listed_and_left_out(plan: SweepPlan, tmp_path: Path) -> None:
    sweep(dataclasses.replace(plan, ratios=(0.0,), timing=False), tmp_path, command="")
    (row,) = _rows(tmp_path)
    (tmp_path / "half.json").write_text('{"arch": "resn')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "other.json").write_text('{"something": "else"}')
    (tmp_path / f"{row}.npz").write_bytes(b"PK damaged")
    runs, failures = read_results(tmp_path)
    assert [run.examples for run in runs] == [None]
    assert {name for name, _ in failures} == {"half.json", "list.json", "other.json", f"{row}.npz"}


def test_names_that_differ_in_odd_characters_only_are_different_files(plan: SweepPlan) -> None:
    category = open_dataset(plan.datasets[0], cache=Path(), only=plan.categories)[0]
    names = ["a b", "a_b", "瓶", "罐", "a" * 250, "a" * 249 + "b"]
    slugs = {sweep_runs._slug("n-dense-s0", dataclasses.replace(category, name=name)) for name in names}
    assert len(slugs) == len(names)
    assert all(slug.isascii() and len(slug) < 150 for slug in slugs)


@pytest.mark.parametrize("damage", ["zeros", "nested", "bomb", "types"])
def test_damaged_results_never_stop_a_report(plan: SweepPlan, tmp_path: Path, damage: str) -> None:
    sweep(dataclasses.replace(plan, ratios=(0.0,), timing=False), tmp_path, command="")
    (pictures,), (row,) = tmp_path.glob("*.npz"), tmp_path.glob("*.json")
    if damage == "zeros":
        content = bytearray(pictures.read_bytes())
        content[200:240] = bytes(40)
        pictures.write_bytes(content)
    elif damage == "nested":
        (tmp_path / "deep.json").write_text("[" * 200_000)
    elif damage == "bomb":
        np.savez_compressed(pictures, images=np.zeros(70_000_000, np.uint8))
    else:
        with np.load(pictures) as stored:
            arrays = {name: stored[name] for name in stored.files}
        np.savez(pictures, **{**arrays, "scores": arrays["names"]})
    runs, failures = read_results(tmp_path)
    assert len(runs) == 1
    assert len(failures) == 1
    assert render(runs, failures, "")["index.html"]
    assert row.is_file()


def test_a_pickle_in_the_place_of_pictures_is_never_opened(plan: SweepPlan, tmp_path: Path) -> None:
    sweep(dataclasses.replace(plan, ratios=(0.0,), timing=False), tmp_path, command="")
    (file,) = tmp_path.glob("*.npz")
    with file.open("wb") as stream:
        np.savez(stream, range=np.array([{"an": "object"}], dtype=object))
    runs, failures = read_results(tmp_path)
    assert runs[0].examples is None
    assert "damaged" in failures[0][1]


def test_no_results_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="compress sweep -o"):
        read_results(tmp_path / "nowhere")


def test_a_category_without_defects_has_no_metrics(tiny_dataset: Path) -> None:
    (category,) = open_dataset(str(tiny_dataset), cache=tiny_dataset, only=("woven_fabric",))
    good = Category("d", "c", category.train[:2], tuple(s for s in category.test if not s.is_defective))
    row, evidence = evaluate(
        compress.create_backbone(ARCH, weights="none"), good, DetectorSettings(timing=False), command=""
    )
    assert (row.image_auroc, row.image_f1, row.pixel_auroc, row.pixel_f1, row.aupro) == (None,) * 5
    assert evidence.examples is not None
    assert evidence.examples.masks is None
    assert set(evidence.examples.kinds) == {"good"}


@pytest.mark.parametrize("name", DATASETS)
def test_every_named_dataset_is_evaluated(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The smallest honest run on each registered dataset: some training images, some of each side."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    category = open_dataset(name, cache=cache)[0]
    good = [sample for sample in category.test if not sample.is_defective][:4]
    bad = [sample for sample in category.test if sample.is_defective][:4]
    few = Category(category.dataset, category.name, category.train[:4], (*good, *bad))
    row, _ = evaluate(compress.create_backbone(ARCH, weights="none"), few, DetectorSettings(), command="")
    assert row.image_auroc is not None
    assert (row.pixel_auroc is not None) == category.has_masks
    assert row.ms_total is None


def test_evidence_whose_header_is_no_python_is_left_out_with_a_complaint(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "row.npz", "w") as archive:
        archive.writestr("range.npy", b"\x93NUMPY\x01\x00\x0b\x00{'descr': (")
    evidence, complaint = read_evidence(tmp_path / "row.npz")
    assert evidence.examples is None
    assert "damaged" in (complaint or "")
