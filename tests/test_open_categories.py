"""What a user types as datasets, and what is said of what they lack."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from anomaly.progress import quiet
from compress import CompressError
from pipelines.data import open_categories


def test_one_folder_under_two_spellings_is_read_once(tiny_dataset: Path) -> None:
    spelt = [str(tiny_dataset), f"{tiny_dataset}{os.sep}", os.path.relpath(tiny_dataset)]
    assert open_categories(spelt, (), track=quiet) == open_categories(spelt[:1], (), track=quiet)


def test_two_folders_of_one_name_are_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(tiny_dataset, tmp_path / tiny_dataset.name)
    with pytest.raises(CompressError, match="is there twice"):
        open_categories([str(tiny_dataset), str(twin)], (), track=quiet)


def test_a_test_split_of_one_side_is_told_with_its_folders(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder called Good is a kind of defect, by the layout; who called it so must see it."""
    category = tmp_path / "parts" / "weave"
    shutil.copytree(tiny_dataset / "woven_fabric", category)
    (category / "test" / "good").rename(category / "test" / "Good")
    shutil.rmtree(category / "ground_truth")
    open_categories([str(tmp_path / "parts")], (), track=quiet)
    told = capsys.readouterr().err
    assert "all test images are defective (of Good, " in told
    for kind in (category / "test").iterdir():
        if kind.name != "Good":
            shutil.rmtree(kind)
    (category / "test" / "Good").rename(category / "test" / "good")
    open_categories([str(tmp_path / "parts")], (), track=quiet)
    assert "parts/weave: all test images are good, so its image metrics are n/a" in capsys.readouterr().err
