"""compress status and compress sweep --dry-run: what is done, what is not, and how long it took and may take."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from compress import CompressError, create_backbone
from pipelines import sweep_worker
from pipelines.cli import app
from pipelines.engines import Ended
from pipelines.locks import is_held, trying
from pipelines.places import variables
from pipelines.run_records import Record, announced, now, read_records, run_lock, sweeps_going_on, write_record
from pipelines.status import folder_status
from pipelines.sweep import SweepOutcome, sweep
from pipelines.sweep_plan import SweepPlan
from pipelines.sweep_preview import preview
from pipelines.sweep_runs import open_runs
from pipelines.sweep_worker import SweepTask

ARCH = "mobilenet_v3_small"
DENSE, SLIM, REFUSED = (f"{ARCH}-{cut}-s0-tiny-woven_fabric" for cut in ("dense", "magnitude-0.5", "magnitude-0.95"))


@pytest.fixture(scope="module")
def plan(tiny_dataset: Path) -> SweepPlan:
    return SweepPlan(
        archs=(ARCH,),
        ratios=(0.0, 0.5, 0.95),
        datasets=(str(tiny_dataset),),
        categories=("woven_fabric",),
        weights="none",
        bank_size=5,
        timing=False,
    )


@pytest.fixture(scope="module")
def swept(plan: SweepPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    assert sweep(plan, folder, command="compress sweep one") == SweepOutcome(run=2, kept=0, failed=1)
    return folder


def states(folder: Path) -> dict[str, str]:
    return {run.name: run.state for run in folder_status(folder).runs}


def test_each_run_has_its_state_its_time_and_its_reason(swept: Path) -> None:
    found = folder_status(swept)
    assert {run.name: run.state for run in found.runs} == {DENSE: "done", SLIM: "done", REFUSED: "failed"}
    assert found.counts == {"running": 0, "waiting": 0, "interrupted": 0, "failed": 1, "done": 2}
    reasons = {run.name: run.reason for run in found.runs}
    assert reasons[DENSE] is None
    assert "largest ratio that leaves one" in str(reasons[REFUSED])
    record = read_records(swept)[SLIM]
    assert record.seconds is not None
    assert record.evaluate_seconds is not None
    (made,) = record.made
    assert (made.name, made.kind) == (f"{ARCH}-magnitude-0.5-s0", f"{ARCH}-magnitude")
    assert made.seconds > 0
    assert record.evaluate_seconds + made.seconds <= record.seconds


def test_a_run_is_running_while_its_lock_is_held_and_interrupted_after(runs: Path) -> None:
    (runs / f"{DENSE}.json").unlink()
    assert states(runs)[DENSE] == "waiting"
    write_record(runs, DENSE, dataclasses.replace(read_records(runs)[DENSE], state="running", seconds=None))
    assert states(runs)[DENSE] == "interrupted"
    with trying(run_lock(runs, DENSE)) as held:
        assert held
        assert states(runs)[DENSE] == "running"
    assert states(runs)[DENSE] == "interrupted"
    (runs / f"{REFUSED}.failed.json").write_text("{")
    assert {run.name: run.reason for run in folder_status(runs).runs}[REFUSED] == "no reason recorded"


def test_other_settings_wait_and_damaged_records_are_passed_over(
    plan: SweepPlan, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_worker, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(dataclasses.replace(plan, bank_size=6, ratios=(0.0, 0.5)), runs, command="two")
    assert states(runs) == {DENSE: "interrupted", SLIM: "waiting", REFUSED: "failed"}
    (runs / "progress" / f"{DENSE}.json").write_text('{"state": 3')
    (runs / "progress" / "sweep-damaged.json").write_text("[]")
    assert states(runs) == {DENSE: "waiting", SLIM: "waiting", REFUSED: "failed"}


def test_a_failure_of_other_settings_or_of_a_run_begun_again_is_none(plan: SweepPlan, runs: Path) -> None:
    refused = read_records(runs)[REFUSED]
    write_record(runs, REFUSED, dataclasses.replace(refused, state="running", seconds=None))
    assert states(runs)[REFUSED] == "interrupted", "it was tried again, and killed"
    write_record(runs, REFUSED, refused)
    with announced(runs, open_runs(dataclasses.replace(plan, bank_size=6)), "other settings"):
        assert states(runs) == dict.fromkeys((DENSE, SLIM, REFUSED), "waiting")
    shutil.rmtree(runs / "progress")
    with announced(runs, open_runs(plan), "the same settings"):
        assert states(runs)[REFUSED] == "failed", "the failure tells what it was made from"


@pytest.mark.parametrize("damage", [{"started": 1}, {"runs": []}, {"seconds": "x"}, {"made": 3}])
def test_plans_and_records_of_other_types_are_passed_over(runs: Path, damage: dict[str, object]) -> None:
    before = states(runs)
    (plan_file,) = (runs / "progress").glob("sweep-*.json")
    for file in (plan_file, runs / "progress" / f"{DENSE}.json"):
        changed = {**json.loads(file.read_text()), **damage}
        file.with_name(file.name.replace("-", "-0", 1)).write_text(json.dumps(changed))
    assert states(runs) == before
    assert set(read_records(runs)) == {DENSE, SLIM, REFUSED}


def test_two_identical_sweeps_are_two_and_the_first_to_end_leaves_one(plan: SweepPlan, tmp_path: Path) -> None:
    runs = open_runs(plan)
    with announced(tmp_path, runs, "one"):
        with announced(tmp_path, runs, "the same"):
            assert len(sweeps_going_on(tmp_path)) == 2
        assert len(sweeps_going_on(tmp_path)) == 1
        assert len(folder_status(tmp_path).going_on) == 1
    assert not sweeps_going_on(tmp_path)
    assert not list((tmp_path / "progress").glob("*.lock"))


def test_a_worker_with_other_weights_refuses_the_run(tiny_dataset: Path, tmp_path: Path) -> None:
    weights, folder = tmp_path / "weights.safetensors", tmp_path / "runs"

    def change(seed: int) -> None:
        save_file(create_backbone(ARCH, weights="none", seed=seed).trunk.state_dict(), weights)

    change(seed=1)
    plan = SweepPlan(
        archs=(ARCH,), ratios=(0.0,), datasets=(str(tiny_dataset),), categories=("woven_fabric",),
        weights=str(weights), bank_size=5, timing=False,
    )  # fmt: skip
    runs = open_runs(plan)
    task = SweepTask(plan, folder, "", Path.cwd(), tuple((run.name, run.key) for run in runs))
    change(seed=2)
    with announced(folder, runs, ""):
        ended = task.open()(DENSE, False)
        assert ended.state == "failed"
        assert "finds other weights, images or data" in ended.text
        assert not (folder / f"{DENSE}.json").exists()
        assert states(folder) == {DENSE: "failed"}
        change(seed=1)
        assert task.open()(DENSE, False).state == "done"


def test_a_run_that_is_lost_is_recorded_unless_another_sweep_finished_it(plan: SweepPlan, runs: Path) -> None:
    (runs / f"{SLIM}.json").unlink()
    write_record(runs, SLIM, dataclasses.replace(read_records(runs)[SLIM], state="running"))
    worker = sweep_worker.SweepWorker(open_runs(plan), runs, "")
    assert worker.give_up(Ended(SLIM, "lost", "its worker died")) == Ended(SLIM, "failed", "its worker died")
    assert read_records(runs)[SLIM].state == "failed"
    assert {run.name: run.reason for run in folder_status(runs).runs}[SLIM] == "its worker died"
    assert worker.give_up(Ended(DENSE, "lost", "its worker died")).state == "kept"
    assert states(runs)[DENSE] == "done"


def test_what_weights_are_found_by_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNECORE_OFFLINE", "1")
    assert variables()["PRUNECORE_OFFLINE"] == "1"


def test_an_error_of_any_kind_is_recorded_and_the_rest_goes_on(
    plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(sweep_worker, "evaluate", broken)
    assert sweep(dataclasses.replace(plan, ratios=(0.0, 0.5)), tmp_path, command="") == SweepOutcome(0, 0, 2)
    assert {run.reason for run in folder_status(tmp_path).runs} == {"ZeroDivisionError: a bug"}
    assert "Traceback" in capsys.readouterr().err
    for file in tmp_path.glob("*.failed.json"):
        assert json.loads(file.read_text())["trace"][-1] == "ZeroDivisionError: a bug"


def test_a_folder_without_a_sweep_says_how_to_make_one(tmp_path: Path) -> None:
    for folder, reason in ((tmp_path, "has no plan of a sweep"), (tmp_path / "none", "does not exist")):
        with pytest.raises(CompressError, match=f"{reason}: compress sweep -o"):
            folder_status(folder)


def test_trying_a_lock_that_nobody_made_makes_none(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "x.lock")
    assert not list(tmp_path.iterdir())


def test_a_preview_counts_what_is_left_and_makes_nothing(plan: SweepPlan, runs: Path, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in runs.rglob("*")}
    found = preview(plan, runs)
    assert [run.name for run in found.done] == [DENSE, SLIM]
    assert [run.name for run in found.todo] == [REFUSED]
    assert [backbone.name for backbone in found.backbones] == [f"{ARCH}-magnitude-0.95-s0"]
    assert {file: file.stat().st_mtime_ns for file in runs.rglob("*")} == before
    anew = preview(plan, tmp_path / "nowhere")
    assert (len(anew.done), len(anew.todo), len(anew.backbones)) == (0, 3, 3)
    assert (anew.estimate.seconds, anew.estimate.rests_on) == (0, 0)
    assert set(anew.estimate.unknown) == {f"{ARCH}-dense", f"{ARCH}-magnitude", f"{ARCH} on tiny/woven_fabric"}
    assert not (tmp_path / "nowhere").exists()


def test_the_estimate_is_the_mean_of_what_was_recorded(plan: SweepPlan, runs: Path) -> None:
    records = read_records(runs)
    evaluations = [record.evaluate_seconds for record in records.values() if record.evaluate_seconds is not None]
    (cut,) = records[SLIM].made
    another = dataclasses.replace(plan, ratios=(0.3, 0.4))
    found = preview(another, runs).estimate
    assert len(evaluations) == 2
    assert found.seconds == pytest.approx(sum(evaluations) / 2 * 2 + cut.seconds * 2)
    assert (found.rests_on, found.unknown) == (2, ())
    trained = preview(dataclasses.replace(another, methods=("magnitude", "random")), runs).estimate
    assert trained.unknown == (f"{ARCH}-random",)


def test_the_commands(plan: SweepPlan, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNECORE_DATA", raising=False)
    told = CliRunner().invoke(app, ["status", str(runs), "--json"])
    assert told.exit_code == 0, told.output
    described = json.loads(told.stdout)
    assert described["counts"]["done"] == 2
    assert {run["state"] for run in described["runs"]} == {"done", "failed"}
    with trying(run_lock(runs, REFUSED)):
        told = CliRunner().invoke(app, ["status", str(runs)])
    assert "1 running, 2 done" in told.stdout
    assert "going on: none" in told.stdout
    given = ["sweep", "--arch", ARCH, "--ratios", "0,0.5,0.95", "--dataset", plan.datasets[0], "--weights", "none"]
    given += ["--category", "woven_fabric", "--bank-size", "5", "--no-timing", "--dry-run", "-o"]
    told = CliRunner().invoke(app, [*given, str(runs)])
    assert told.exit_code == 0, told.output
    assert "1 runs to do, 2 done, 1 backbones to make" in told.stdout
    assert "from the mean times of 2 runs" in told.stdout
    told = CliRunner().invoke(app, [*given, str(runs / "new"), "--engine", "processes", "--workers", "3"])
    assert "time: unknown" in told.stdout
    refused = CliRunner().invoke(app, [*given, str(runs), "--workers", "3"])
    assert refused.exit_code == 2
    assert "the engine is serial" in refused.stderr


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    record = Record("running", "k", "a on b", now(), os.getpid())
    write_record(tmp_path, "name", record)
    assert read_records(tmp_path) == {"name": record}


def test_names_in_a_plan_lead_to_no_file_outside_the_folder(tmp_path: Path) -> None:
    """A lock is opened to see who holds it: a stranger's results must not have it done to any file that ends so."""
    runs = tmp_path / "runs"
    (runs / "progress").mkdir(parents=True)
    (tmp_path / "poetry.lock").write_text("whole")
    (tmp_path / "row.json").write_text('{"key": "k"}')
    for number, name in enumerate(("../../poetry", "../row", str(tmp_path / "row"), "x" * 5000)):
        plan = {"identity": "x", "started": "", "command": "", "runs": {name: "k"}}
        (runs / "progress" / f"sweep-{number}.json").write_text(json.dumps(plan))
    with pytest.raises(CompressError, match="has no plan of a sweep"):
        folder_status(runs)
    assert (tmp_path / "poetry.lock").read_text() == "whole"


def test_pipes_and_links_among_the_records_are_passed_over(tmp_path: Path) -> None:
    progress = tmp_path / "runs" / "progress"
    progress.mkdir(parents=True)
    (progress / "sweep-0.json").write_text(
        json.dumps({"identity": "x", "started": "", "command": "", "runs": {"a": "k", "b": "k"}})
    )
    os.mkfifo(progress / "a.json")
    os.mkfifo(progress / "a.lock")
    (progress / "b.lock").symlink_to("b.lock")
    (progress / "sweep-1.json").symlink_to("/dev/zero")
    assert states(tmp_path / "runs") == {"a": "waiting", "b": "waiting"}
