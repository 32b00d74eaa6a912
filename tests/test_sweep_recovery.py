"""Sweeps with recoveries: cuts are shared, killed recoveries go on, and what changes what is made again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import same

import compress
from anomaly import Category
from compress import RECOVERIES, Backbone, CompressError
from compress.backbone import Pruning
from compress.importance import METHODS
from compress.pruning import procedure
from pipelines import sweep_worker
from pipelines.results import Row
from pipelines.slimming import Recovering, Slimming
from pipelines.sweep import SweepOutcome, sweep
from pipelines.sweep_plan import SweepPlan

pytestmark = pytest.mark.usefixtures("small_recipes", "no_detector")

NAME = "mobilenet_v3_small-{}-s0"


@pytest.fixture
def no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end with the backbone: what the detector makes of it is tested elsewhere."""

    def evaluate(backbone: Backbone, category: Category, *arguments: object, **options: object) -> tuple[Row, None]:
        backbone(torch.zeros(1, 3, 64, 64))
        given = {field.name: None for field in dataclasses.fields(Row)}
        return Row(**{**given, "recover": recovery(backbone)}), None  # type: ignore[arg-type]

    def write_result(folder: Path, name: str, row: Row, examples: None, key: str) -> None:
        (folder / f"{name}.json").write_text(json.dumps({"recover": row.recover, "key": key}))

    def is_finished(folder: Path, name: str, key: str) -> bool:
        file = folder / f"{name}.json"
        return file.is_file() and json.loads(file.read_text()).get("key") == key

    for each in (evaluate, write_result, is_finished):
        monkeypatch.setattr(sweep_worker, each.__name__, each)


@pytest.fixture
def plan(tiny_dataset: Path, photographs: Path) -> SweepPlan:
    return SweepPlan(
        archs=("mobilenet_v3_small",),
        methods=("growing_reg",),
        ratios=(0.5,),
        recovers=("none", "distill"),
        steps=5,
        sparse_steps=3,
        images=(str(photographs),),
        datasets=(str(tiny_dataset),),
        categories=("woven_fabric",),
        weights="none",
        timing=False,
    )


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of each sparse phase that was run."""
    seen: list[int] = []
    train_sparse: Callable[..., Backbone] = procedure.train_sparse

    def counted(*arguments: Any, **options: Any) -> Backbone:
        seen.append(options["steps"])
        return train_sparse(*arguments, **options)

    monkeypatch.setattr(procedure, "train_sparse", counted)
    return seen


def recovery(backbone: Backbone) -> str:
    return backbone.spec.pruning.recover if backbone.spec.pruning else "dense"


def made(folder: Path, slimming: str) -> tuple[Backbone, Pruning]:
    backbone = compress.load_backbone(folder / "backbones" / f"{NAME.format(slimming)}.safetensors")
    assert backbone.spec.pruning is not None
    return backbone, backbone.spec.pruning


def keys(folder: Path) -> dict[str, str]:
    return {file.stem: file.read_text() for file in (folder / "backbones").glob("*.key")}


def test_a_cut_is_made_once_for_all_its_recoveries(plan: SweepPlan, tmp_path: Path, phases: list[int]) -> None:
    several = dataclasses.replace(plan, ratios=(0.0, 0.5), recovers=("none", "distill", "bn"))
    assert sweep(several, tmp_path, command="") == SweepOutcome(run=4, kept=0, failed=0)
    assert phases == [3]
    plain, cut = made(tmp_path, "growing_reg-0.5")
    better, recovered = made(tmp_path, "growing_reg-0.5-distill")
    assert (cut.recover, cut.recover_steps, cut.sparse_steps) == ("none", 0, 3)
    assert (recovered.recover, recovered.recover_steps, recovered.sparse_steps) == ("distill", 5, 3)
    assert made(tmp_path, "growing_reg-0.5-bn")[1].recover == "bn"
    assert cut.kept == recovered.kept
    assert not torch.equal(next(plain.parameters()), next(better.parameters()))
    rows = {json.loads(file.read_text())["recover"] for file in tmp_path.glob("*.json")}
    assert rows == {"dense", "none", "distill", "bn"}
    assert not list((tmp_path / "backbones").glob("*.state*"))


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.penalty])
def test_a_sparse_phase_serves_every_ratio(plan: SweepPlan, tmp_path: Path, method: str) -> None:
    several = dataclasses.replace(plan, methods=(method,), ratios=(0.3, 0.5), recovers=("none",), steps=None)
    steps: list[int] = []
    sweep(several, tmp_path / "together", command="", report=lambda *told: steps.append(told[0]))
    # A method that ranks first presses other channels at another ratio.
    assert steps == [1, 2, 3] * (2 if METHODS[method].ranks_first else 1)
    sweep(dataclasses.replace(several, ratios=(0.5,)), tmp_path / "alone", command="")
    shared, record = made(tmp_path / "together", f"{method}-0.5")
    own, alone = made(tmp_path / "alone", f"{method}-0.5")
    assert record == alone
    assert record.sparse_steps == 3
    assert same(shared, own)
    assert not list((tmp_path / "together" / "backbones").glob("*.state*"))


def test_channels_are_scored_once_for_every_ratio(plan: SweepPlan, tmp_path: Path, gathered: list[str]) -> None:
    methods = ("lcp", "taylor", "magnitude")
    plan = dataclasses.replace(plan, methods=methods, recovers=("none", "reinit+distill"))
    several = dataclasses.replace(plan, ratios=(0.3, 0.5), seeds=(0, 1))
    assert sweep(several, tmp_path / "together", command="").failed == 0
    assert gathered == ["activations", "gradients", "weights"] * 2  # for one seed and then the other
    for method in methods:
        sweep(dataclasses.replace(plan, methods=(method,), ratios=(0.5,)), tmp_path / "alone", command="")
        for recovery in ("", "-reinit+distill"):
            shared, record = made(tmp_path / "together", f"{method}-0.5{recovery}")
            own, alone = made(tmp_path / "alone", f"{method}-0.5{recovery}")
            assert record == alone
            assert same(shared, own)


def test_a_killed_shared_phase_goes_on_at_any_ratio(plan: SweepPlan, tmp_path: Path) -> None:
    plan = dataclasses.replace(plan, methods=("group_norm",), ratios=(0.3, 0.5), recovers=("none",), steps=None)

    def killed(step: int, loss: float, held_out: float | None) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(plan, tmp_path, command="", report=killed)
    other = dataclasses.replace(plan, methods=("batch_norm",))
    assert sweep(other, tmp_path, command="").failed == 0  # another plan in this folder leaves the state alone
    (state,) = (tmp_path / "backbones").glob("*.state")
    steps: list[int] = []
    again = dataclasses.replace(plan, ratios=(0.5,))
    assert sweep(again, tmp_path, command="", report=lambda *told: steps.append(told[0])).failed == 0
    assert steps == [3]
    assert not state.exists()


def test_a_shared_phase_is_kept_for_runs_that_failed(
    plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(plan, methods=("group_norm",), ratios=(0.3, 0.5), recovers=("none",), steps=None)
    finished = sweep_worker.evaluate

    def refused(backbone: Backbone, *arguments: Any, **options: Any) -> Any:
        if backbone.spec.pruning and backbone.spec.pruning.ratio == 0.5:
            raise CompressError("not this time")
        return finished(backbone, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sweep_worker, "evaluate", refused)
        assert sweep(plan, tmp_path, command="") == SweepOutcome(1, 0, 1)
    assert list((tmp_path / "backbones").glob("*.state"))
    assert sweep(plan, tmp_path, command="") == SweepOutcome(1, 1, 0)
    assert not list((tmp_path / "backbones").glob("*.state"))


def test_a_killed_recovery_goes_on(plan: SweepPlan, tmp_path: Path, phases: list[int]) -> None:
    sweep(plan, tmp_path / "whole", command="")
    left = iter(range(3 + 2))  # all of the sparse phase, and two steps

    def killed(step: int, loss: float, held_out: float | None) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    runs = tmp_path / "runs"
    with pytest.raises(KeyboardInterrupt):
        sweep(plan, runs, command="", report=killed)
    assert list((runs / "backbones").glob("*.recovery.state"))
    steps: list[int] = []
    assert sweep(plan, runs, command="", report=lambda *told: steps.append(told[0])) == SweepOutcome(1, 1, 0)
    assert steps == [3, 4, 5]
    assert phases == [3, 3]  # one for each folder
    whole, unbroken = made(tmp_path / "whole", "growing_reg-0.5-distill")
    continued, record = made(runs, "growing_reg-0.5-distill")
    assert record == unbroken
    assert same(continued, whole)
    assert not list((runs / "backbones").glob("*.state*"))


def test_killed_and_then_given_other_steps_it_begins_anew(plan: SweepPlan, tmp_path: Path) -> None:
    """What a killed recovery left behind belongs to another request, and must not fail this one."""
    left: Iterator[int] = iter(range(3 + 2))

    def killed(step: int, loss: float, held_out: float | None) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(plan, tmp_path, command="", report=killed)
    assert sweep(dataclasses.replace(plan, steps=4), tmp_path, command="").failed == 0
    assert made(tmp_path, "growing_reg-0.5-distill")[1].recover_steps == 4
    assert not list((tmp_path / "backbones").glob("*.state*"))


@pytest.mark.parametrize(
    ("change", "run"), [({"steps": 4}, 1), ({"sparse_steps": 2}, 2), ({"one_shot": True}, 2), ({"images": "dark"}, 2)]
)
def test_what_changes_is_made_again(
    plan: SweepPlan, tmp_path: Path, photographs: Path, change: dict[str, Any], run: int
) -> None:
    sweep(plan, tmp_path, command="")
    if "images" in change:
        change = {"images": (str(photographs / "dark"),)}
    assert sweep(dataclasses.replace(plan, **change), tmp_path, command="") == SweepOutcome(run, 2 - run, 0)
    assert sweep(dataclasses.replace(plan, **change), tmp_path, command="") == SweepOutcome(0, 2, 0)


def test_images_that_others_need_change_nothing(plan: SweepPlan, tmp_path: Path, photographs: Path) -> None:
    """The dense network and a cut by magnitude look at no images, whoever else in the sweep does."""
    without = dataclasses.replace(
        plan, methods=("magnitude",), ratios=(0.0, 0.5), recovers=("none",), steps=None, images=()
    )
    sweep(without, tmp_path, command="")
    before = keys(tmp_path)
    also = dataclasses.replace(without, recovers=("none", "bn"), images=(str(photographs),))
    assert sweep(also, tmp_path, command="") == SweepOutcome(run=1, kept=2, failed=0)
    assert before.items() < keys(tmp_path).items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ()}, "method growing_reg trains the network towards sparsity"),
        ({"images": (), "one_shot": True}, "recovery distill needs images"),
        ({"methods": ("magnitude", "lcp"), "images": (), "recovers": ("none",), "steps": None}, "method lcp reads"),
        ({"recovers": ("none", "finetune")}, "recovery finetune learns from classes"),
        ({"methods": ("magnitude",), "recovers": ("none",), "steps": None}, "nothing in this sweep reads images"),
        ({"images": ("nowhere",)}, "folder of images nowhere does not exist"),
    ],
)
def test_a_sweep_without_what_it_needs_is_refused_before_any_run(
    plan: SweepPlan, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompressError, match=message):
        sweep(dataclasses.replace(plan, **change), tmp_path / "runs", command="")
    assert not (tmp_path / "runs").exists()


def test_classes_that_nothing_learns_from_are_refused(plan: SweepPlan, tmp_path: Path, photographs: Path) -> None:
    needless = dataclasses.replace(
        plan, methods=("magnitude",), recovers=("none",), steps=None, images=(), labelled=str(photographs)
    )
    with pytest.raises(CompressError, match="nothing in this sweep reads images with classes"):
        sweep(needless, tmp_path, command="")


def test_steps_are_for_the_recoveries_that_train() -> None:
    plan = SweepPlan(ratios=(0.5,), recovers=("none", "bn", "distill"), steps=7)
    assert [each and each.recovering and each.recovering.steps for each in plan.slimmings()] == [None, None, 7]
    with pytest.raises(CompressError, match="steps 7, but no recovery to spend them on"):
        SweepPlan(recovers=("none", "bn"), steps=7)
    with pytest.raises(CompressError, match="no method of the sweep has one"):
        SweepPlan(one_shot=True)


def test_sparse_steps_are_for_the_methods_that_have_the_phase() -> None:
    plan = SweepPlan(methods=("magnitude", "bn"), ratios=(0.5,), sparse_steps=7)
    assert [each and each.sparse_steps for each in plan.slimmings()] == [500, 7]
    once = dataclasses.replace(plan, one_shot=True)
    assert once.slimmings() == dataclasses.replace(once, sparse_steps=500).slimmings()


def test_a_plan_out_of_toml_has_the_training_too(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(
        'methods = ["bn", "magnitude"]\nratios = [0.5]\nrecovers = ["none", "distill"]\nsteps = 9\nimages = "photos"\n'
        'labelled = "classes"\none_shot = true\nsparse_steps = 3\nscope = "global"\n'
    )
    plan = SweepPlan.from_toml(file)
    assert plan == SweepPlan(
        methods=("bn", "magnitude"), ratios=(0.5,), recovers=("none", "distill"), steps=9, images=("photos",),
        labelled="classes", one_shot=True, sparse_steps=3, scope="global",
    )  # fmt: skip
    slimmings = [each for each in plan.slimmings() if each]
    assert [(each.name, each.one_shot) for each in slimmings] == [
        ("batch_norm-0.5", True), ("batch_norm-0.5-distill", True),
        ("magnitude-0.5", False), ("magnitude-0.5-distill", False),
    ]  # fmt: skip
    assert {each.rule and each.rule.scope for each in slimmings} == {"global"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('recovers = ["distil"]', "did you mean distill"),
        ('recovers = ["distill"]\nsteps = 0', "0 steps of recovery"),
        ('recovers = ["distill"]\nsteps = true', "steps = True: int is needed"),
        ("steps = 1.5", "int is needed"),
        ("images = [3]", "a list of str is needed"),
        ("labelled = 3", "str is needed"),
        ("one_shot = 1", "bool is needed"),
        ('scope = "locl"', "did you mean local"),
        ("seeds = [true]", "a list of int is needed"),
    ],
)
def test_toml_that_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(CompressError, match=message):
        SweepPlan.from_toml(tmp_path / "sweep.toml")


def test_the_control_with_fresh_weights_is_a_row_of_its_own() -> None:
    plan = SweepPlan(ratios=(0.5,), recovers=("distill", "reinit+distill"), steps=3)
    inherited, fresh = plan.slimmings()
    assert inherited
    assert fresh
    assert (inherited.reinit, fresh.reinit) == (False, True)
    assert (inherited.name, fresh.name) == ("magnitude-0.5-distill", "magnitude-0.5-reinit+distill")


def test_the_request_names_the_recipe_and_the_steps_that_are_meant() -> None:
    """Otherwise a newer version, with another recipe or default, would take an older one's backbone for its own."""
    default = RECOVERIES["distill"]
    meant, said = (
        Slimming(ratio=0.5, recovering=Recovering("distill", steps)).asked(0) for steps in (None, default.steps)
    )
    assert meant == said
    other = Slimming(ratio=0.5, recovering=Recovering("distill", 7)).asked(0)
    assert other != meant
    assert meant["recovering"][1]["crop"] == default.recipe.crop
