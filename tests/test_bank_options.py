"""How a bank is asked for: amounts of memory, and what of it makes another result."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly import AnomalyError
from compress import CompressError
from pipelines.byte_counts import byte_count
from pipelines.evaluate import DetectorSettings
from pipelines.sweep_plan import SweepPlan


@pytest.mark.parametrize(
    ("text", "count"),
    [("1000", 1000), ("512M", 512 << 20), ("4G", 4 << 30), ("1.5 GiB", 3 << 29), ("2k", 2048), ("1TB", 1 << 40)],
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "4X", "G", "-1G", "0", "1,5G"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(CompressError, match="is no amount: write 512M or 4G"):
        byte_count(text)


def test_results_from_before_an_option_existed_are_still_found() -> None:
    assert DetectorSettings().key() == {"coreset": 0.01, "bank_size": None, "seed": 0, "timing": False}


def test_a_result_depends_on_the_sampler_but_not_on_the_folder(tmp_path: Path) -> None:
    plain = DetectorSettings()
    assert DetectorSettings(features=tmp_path).key() == plain.key()
    changes = (
        {"sampler": "random"},
        {"coverage": 2.0},
        {"memory": 1 << 30},
        {"features": tmp_path, "features_dtype": "float16"},
    )
    keys = [DetectorSettings(**change).key() for change in changes]  # type: ignore[arg-type]
    assert all(key != plain.key() for key in keys)


def test_a_plan_says_how_the_detector_is_fitted(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(
        'sampler = "two_level"\ncoverage = 2\nmemory = "4G"\nfeatures = "kept"\nfeatures_dtype = "float16"\n'
        "bank_size = 9\n"
    )
    settings = SweepPlan.from_toml(file).detector(seed=3)
    assert settings == DetectorSettings(
        bank_size=9,
        seed=3,
        timing=True,
        sampler="two_level",
        coverage=2.0,
        memory=4 << 30,
        features=Path("kept"),
        features_dtype="float16",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "gredy"}, "did you mean greedy"),
        ({"sampler": "random", "coverage": 1.0}, "knows no covering radius"),
        ({"coverage": -1.0}, "is below 0"),
        ({"memory": "much"}, "is no amount"),
        ({"features_dtype": "float8"}, "choose from float32, float16"),
        ({"features_dtype": "float16"}, "on disk alone: name a folder"),
        ({"sampler": "full", "bank_size": 100}, "keeps every patch, not 100"),
        ({"latency_ms": 0.0}, "search of 0 ms cannot be had"),
        ({"latency_ms": 20.0, "index": "ivf"}, "20 ms are a wish for index auto, and the index is ivf"),
        ({"draw": "first"}, "give a width too"),
    ],
)
def test_a_plan_that_makes_no_bank_is_refused_before_any_run(options: dict[str, object], message: str) -> None:
    with pytest.raises((AnomalyError, CompressError), match=message):
        SweepPlan(**options)  # type: ignore[arg-type]
