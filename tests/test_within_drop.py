"""The largest ratio within a drop of AUROC, with made-up scores where the right answer is known."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from networks import same

import compress
from anomaly import Category, open_dataset
from compress import Backbone, CompressError
from compress.importance import METHODS
from pipelines import drop_search
from pipelines import within_drop as module
from pipelines.drop_search import DropSearch
from pipelines.image_sets import open_images
from pipelines.slimming import Images, Recovering, Slimming
from pipelines.validation import ValidationAuroc
from pipelines.within_drop import slim_within_drop, told

Judge = Callable[[Callable[[float, str], float]], None]


@pytest.fixture(scope="module")
def dense() -> Backbone:
    return compress.create_backbone("mobilenet_v3_small", weights="none")


@pytest.fixture
def categories(tiny_dataset: Path) -> tuple[Category, ...]:
    return tuple(open_dataset(str(tiny_dataset), cache=tiny_dataset))


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Makes a function of ratio and category the validation AUROC."""

    def split(category: Category, *, seed: int) -> str:
        return category.name

    def install(score: Callable[[float, str], float]) -> None:
        def auroc(backbone: Backbone, split: str, *arguments: object, **options: object) -> ValidationAuroc:
            ratio = backbone.spec.pruning.ratio if backbone.spec.pruning else 0.0
            return ValidationAuroc(image=score(ratio, split), pixel=0.0)

        monkeypatch.setattr(module, "validation_auroc", auroc)

    monkeypatch.setattr(module, "validation_split", split)
    return install


def search(dense: Backbone, categories: tuple[Category, ...], drop: float, **options: Any) -> DropSearch[Backbone]:
    slimming, images = options.pop("slimming", Slimming(ratio=0.5)), options.pop("images", Images())
    return slim_within_drop(slimming, dense, dense, images, categories, drop, **options)


def test_the_ratio_is_searched_on_the_mean_over_categories(
    dense: Backbone, categories: tuple[Category, ...], judge: Judge
) -> None:
    """One category loses nothing and the other the square of the ratio: 0.02 on the mean is 0.04 on that one."""
    judge(lambda ratio, name: 0.9 - (ratio**2 if name == "woven_fabric" else 0))
    found = search(dense, categories, 0.02)
    assert found.ratio == 0.2
    assert found.best.spec.pruning is not None
    assert found.best.spec.pruning.ratio == pytest.approx(0.2)
    assert found.dense == pytest.approx(0.9)
    rows = told(found)
    assert rows[0] == ["0", "0.9000"]
    assert ["0.2", "0.8800"] in rows
    assert [float(row[0]) for row in rows] == sorted(float(row[0]) for row in rows)


def test_a_ratio_that_cannot_be_cut_is_told_as_such(
    dense: Backbone, categories: tuple[Category, ...], judge: Judge
) -> None:
    judge(lambda ratio, name: 0.9)
    found = search(dense, categories, 0.0)
    assert found.ratio == 0.87  # the narrowest group has 8 channels
    assert "largest ratio that leaves one" in dict(told(found))["0.95"]


@pytest.mark.usefixtures("small_recipes")
def test_each_ratio_is_recovered_and_has_states_of_its_own(
    dense: Backbone, categories: tuple[Category, ...], judge: Judge, photographs: Path, tmp_path: Path
) -> None:
    judge(lambda ratio, name: 0.9 if ratio < 0.25 else 0.5)
    slimming = Slimming(ratio=0.5, recovering=Recovering("distill", 2))
    given: dict[str, Any] = {"slimming": slimming, "images": Images(open_images([photographs]))}
    found = search(dense, categories[:1], 0.1, keep=tmp_path / "slim.safetensors", **given)
    assert found.ratio == 0.24
    assert found.best.spec.pruning is not None
    assert found.best.spec.pruning.recover == "distill"
    states = {file.name for file in tmp_path.iterdir()}
    assert states == {f"slim.safetensors.{trial.ratio:g}.recovery1.state" for trial in found.trials}
    steps: list[int] = []
    again = search(
        dense,
        categories[:1],
        0.1,
        keep=tmp_path / "slim.safetensors",
        report=lambda *report: steps.append(report[0]),
        **given,
    )
    assert not steps  # all was trained before
    assert again.trials == found.trials


@pytest.mark.parametrize("method", ["lcp", "group_norm", "growing_reg"])
@pytest.mark.usefixtures("small_recipes")
def test_what_comes_before_a_cut_is_done_once_where_the_method_allows_it(
    dense: Backbone,
    categories: tuple[Category, ...],
    judge: Judge,
    photographs: Path,
    tmp_path: Path,
    gathered: list[str],
    method: str,
) -> None:
    judge(lambda ratio, name: 0.9 if ratio < 0.25 else 0.5)
    trained: list[int] = []
    found = search(
        dense,
        categories[:1],
        0.1,
        slimming=Slimming(method, sparse_steps=2),
        images=Images(open_images([photographs])),
        keep=tmp_path / "slim.safetensors",
        report=lambda *told: trained.append(told[0]),
    )
    cuts = sum(trial.score is not None for trial in found.trials)
    assert cuts > 2
    if METHODS[method].reads == "activations":
        assert gathered == ["activations"]
    assert trained == {"lcp": [], "group_norm": [1, 2], "growing_reg": [1, 2] * cuts}[method]
    alone = Slimming(method, ratio=found.ratio, sparse_steps=2)
    again = alone.slim(dense, dense, Images(open_images([photographs])))
    assert again.spec == found.best.spec
    assert same(again, found.best)


def test_refusals_come_before_the_first_cut(
    dense: Backbone, categories: tuple[Category, ...], judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("cut before the refusal")

    judge(lambda ratio, name: 0.55)
    monkeypatch.setattr(Slimming, "slim", never)
    monkeypatch.setattr(Slimming, "ranking", never)
    with pytest.raises(CompressError, match=r"AUROC of 0\.550 on the validation split before any cut, and below 0\.6"):
        search(dense, categories, 0.1)
    with pytest.raises(CompressError, match=r"AUROC drop 1\.5 is outside \[0, 1\)"):
        search(dense, categories, 1.5)
    monkeypatch.undo()
    with pytest.raises(CompressError, match="has 6 training images, and a validation split needs 24"):
        search(dense, categories, 0.1)


def test_a_drop_that_no_ratio_meets_is_refused(dense: Backbone, categories: tuple[Category, ...], judge: Judge) -> None:
    judge(lambda ratio, name: 0.9 - ratio)
    with pytest.raises(CompressError, match=r"AUROC drop 0\.001 cannot be met: .* allow a drop of 0\.01.* method$"):
        search(dense, categories, 0.001, keep=Path("nothing is trained.safetensors"))


@pytest.mark.usefixtures("small_recipes")
def test_the_states_of_a_search_that_found_nothing_are_told(
    dense: Backbone,
    categories: tuple[Category, ...],
    judge: Judge,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They serve one with a larger drop, and stand in the way of one with other steps; `rm` takes them away."""

    def searched(drop: float, steps: int) -> list[int]:
        trained: list[int] = []
        search(
            dense,
            categories[:1],
            drop,
            slimming=Slimming(recovering=Recovering("distill", steps)),
            images=Images(open_images([photographs])),
            keep=tmp_path / "the slim.safetensors",
            report=lambda *told: trained.append(told[0]),
        )
        return trained

    monkeypatch.setattr(drop_search, "SCAN", (20,))  # one ratio is enough
    monkeypatch.setattr(drop_search, "STEPS", ())
    judge(lambda ratio, name: 0.9 - ratio)
    with pytest.raises(CompressError, match=r"recover, longer if you did, .* are kept .*, rm ") as refused:
        searched(0.1, steps=2)
    assert searched(0.3, steps=2) == []
    with pytest.raises(CompressError, match="belongs to another request"):
        searched(0.3, steps=1)
    clear = str(refused.value).rpartition("before any other search, ")[2]
    subprocess.run(["/bin/sh", "-c", clear], check=True)
    assert not list(tmp_path.iterdir())
