"""The benchmark of what int8 costs: its images, its table, and one small run of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import compress
from anomaly.datasets.generated import generate
from benchmarks import int8_cost
from benchmarks.int8_cost import Difference, calibration_of, parted, summary, table
from pipelines import validation


def test_the_summary_by_hand() -> None:
    assert summary([0.01, -0.03]) == "-0.0100 ± 0.0200 (-0.0300)"  # deviation 0.0283 over the root of 2
    assert summary([0.01]) == "+0.0100 (+0.0100)"


def test_the_table_has_a_row_for_each_calibration() -> None:
    found = [
        Difference("net", calibration, "photographs", split, value, 0.0, 0.1)
        for split, value in (("a/0", 0.01), ("a/1", 0.03))
        for calibration in ("mse", "minmax")
    ]
    lines = table(found).splitlines()
    assert len(lines) == 4
    assert lines[2] == (
        "| net | mse | photographs | 2 | 0.100 | +0.0200 ± 0.0100 (+0.0100) | +0.0000 ± 0.0000 (+0.0000) |"
    )


def test_calibrations_by_name() -> None:
    assert calibration_of("percentile:99.9", 8).percentile == 99.9
    assert calibration_of("mse", 8).method == "mse"


def test_no_image_is_measured_on_that_was_calibrated_on() -> None:
    images = [torch.full((1,), float(number)) for number in range(100)]
    calibrating, held = parted(images, 20)
    assert (len(calibrating), len(held)) == (28, 16)
    assert not {float(image) for image in calibrating} & {float(image) for image in held}


def test_both_tables_of_a_small_run(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(validation, "DEFECTIVE", 8)
    monkeypatch.setattr(int8_cost, "HELD_OUT", 4)
    threads = str(torch.get_num_threads())
    data = generate(tmp_path / "data", seed=3, surfaces=["printed_grid"], train=24, good=1, per_defect=1)
    command = ["mobilenet_v3_small", "--weights", "none", "--images", str(photographs), "--calibrations", "minmax,mse"]
    command += ["--count", "8", "--datasets", str(data), "--seeds", "1", "--threads", threads]
    monkeypatch.setattr(sys, "argv", ["int8_cost", *command, "-o", str(tmp_path / "found.json")])
    int8_cost.main()
    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in printed if line.startswith("| mobilenet_v3_small")]
    assert [row.split(" | ")[1] for row in rows] == ["minmax", "mse", "minmax", "mse", "minmax"]
    assert rows[-1].split(" | ")[2] == "its good images"
    errors = [float(error) for error in rows[0].rstrip("| ").split(" | ")[2].split(" / ")]
    assert all(0 < error < 1 for error in errors)
    assert [each["split"] for each in json.loads((tmp_path / "found.json").read_text())] == ["data/printed_grid/0"] * 3


def test_broken_maps_are_a_row_too(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise compress.CompressError("the int8 maps have a relative error of 0.57")

    monkeypatch.setattr(compress, "quantize", refuse)
    command = ["mobilenet_v3_small", "--weights", "none", "--images", str(photographs), "--calibrations", "entropy,mse"]
    monkeypatch.setattr(sys, "argv", ["int8_cost", *command, "--count", "8", "--datasets", "unread"])
    int8_cost.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| mobilenet_v3_small")]
    assert rows == [
        f"| mobilenet_v3_small | {name} | refused: the int8 maps have a relative error of 0.57 |"
        for name in ("entropy", "mse")
    ]
