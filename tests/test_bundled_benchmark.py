"""The benchmark of the bundled weights: its table by hand, and one small run of it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

import compress
from benchmarks import bundled_weights
from benchmarks.bundled_weights import Contender, by_seed, contenders, measure, summary, table
from compress.weights.bundled import card_of, write_bundled
from pipelines.sweep import SweepOutcome
from pipelines.sweep_plan import SweepPlan

ARCH = "mobilenet_v3_small"
OURS = Contender(ARCH, "bundled", "bundled")


def _row(dataset: str, category: str, seed: int, image: float, pixel: float | None) -> dict[str, object]:
    return {"dataset": dataset, "category": category, "seed": seed, "image_auroc": image, "pixel_auroc": pixel}


def test_the_table_is_the_mean_over_categories_then_over_seeds() -> None:
    rows = [
        _row("tiles", "a", 0, 0.8, 0.7),
        _row("tiles", "b", 0, 0.9, 0.7),
        _row("tiles", "a", 1, 0.7, 0.7),
        _row("tiles", "b", 1, 0.8, 0.7),
        _row("cells", "a", 0, 0.6, None),
    ]
    assert by_seed(rows, "tiles", "image_auroc") == pytest.approx([0.85, 0.75])
    assert table({OURS: rows}, ["tiles", "cells"]).splitlines() == [
        "| network | weights | tiles: image AUROC | tiles: pixel AUROC | cells: image AUROC | cells: pixel AUROC |",
        "|---|---|---:|---:|---:|---:|",
        f"| {ARCH} | bundled | 0.800 (±0.050) | 0.700 (±0.000) | 0.600 | n/a |",
    ]
    assert summary([]) == "n/a"


def test_official_weights_are_taken_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNECORE_DATA", raising=False)
    monkeypatch.setattr(bundled_weights, "cached", lambda architecture: None)
    assert [each.title for each in contenders([ARCH])] == ["random", "bundled", "offline package"]
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / f"{ARCH}-official.safetensors").touch()
    monkeypatch.setenv("PRUNECORE_DATA", str(tmp_path))
    assert Contender(ARCH, "official", str(folder / f"{ARCH}-official.safetensors")) in contenders([ARCH])
    monkeypatch.setattr(bundled_weights, "package_file", lambda: None)
    assert [each.title for each in contenders([ARCH])] == ["random", "bundled", "official"]


@pytest.mark.parametrize("given", [["--datasets", "elpv"], ["--coreset", "0.1"]])
def test_what_the_card_is_not_about_is_not_recorded(
    given: list[str], bundled_stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bundled_weights", "--record", *given])
    monkeypatch.setattr(bundled_weights, "measure", lambda *given: pytest.fail("measured"))
    with pytest.raises(SystemExit):
        bundled_weights.main()
    assert "--record is for magnetic_tile at --coreset 0.01" in capsys.readouterr().err


def test_only_the_rows_of_these_weights_and_this_plan_count(
    tiny_dataset: Path, bundled_stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = SweepPlan((ARCH,), weights="bundled", ratios=(0.0,), datasets=(str(tiny_dataset),), timing=False)
    folder = tmp_path / "runs"
    first = measure(OURS, plan, folder)
    assert len(first) == 2
    card = card_of(ARCH)
    state = compress.create_backbone(ARCH, weights="none", seed=6).trunk.state_dict()
    write_bundled(bundled_stand_in / f"{ARCH}.safetensors", state, card)
    one = dataclasses.replace(plan, categories=("printed_grid",))
    (row,) = measure(OURS, one, folder)  # the other category's old row is still there
    assert row["category"] == "printed_grid"
    assert row["weights_fingerprint"] != first[0]["weights_fingerprint"]
    monkeypatch.setattr(bundled_weights, "sweep", lambda *given, **options: SweepOutcome(0, 0, 1))
    with pytest.raises(SystemExit, match="1 of 1 runs are there, 1 failed"):
        measure(OURS, one, folder)
    with pytest.raises(SystemExit, match="1 of 2 runs are there"):
        measure(OURS, plan, folder)


def test_a_small_run_prints_its_table_and_records_what_it_measured(
    tiny_dataset: Path,
    bundled_stand_in: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = [each for each in contenders([ARCH]) if each.title in ("random", "bundled")]
    monkeypatch.setattr(bundled_weights, "contenders", lambda archs: ours)
    monkeypatch.setattr(bundled_weights, "DATASET", tiny_dataset.name)
    before = compress.create_backbone(ARCH, weights="bundled").spec.weights
    given = [
        "--datasets",
        str(tiny_dataset),
        "--seeds",
        "0",
        "--threads",
        "1",
        "--record",
        "-o",
        str(tmp_path / "runs"),
    ]
    monkeypatch.setattr(sys, "argv", ["bundled_weights", *given])
    bundled_weights.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines[-2:]] == ["random", "bundled"]
    card = card_of(ARCH)
    assert card.dataset == tiny_dataset.name
    assert f"| {card.image_auroc['bundled']:.3f} |" in lines[-1]
    assert f"| {card.image_auroc['random']:.3f} |" in lines[-2]
    assert compress.create_backbone(ARCH, weights="bundled").spec.weights == before
