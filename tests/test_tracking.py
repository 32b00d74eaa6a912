"""MLflow: every row once, in a real store on this disk; a store that fails stops nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from compress import CompressError
from pipelines.sweep import SweepOutcome, sweep
from pipelines.sweep_plan import SweepPlan
from pipelines.tracking import EXPERIMENT, Tracker

ARCH = "mobilenet_v3_small"


@pytest.fixture
def plan(tiny_dataset: Path) -> SweepPlan:
    return SweepPlan(
        archs=(ARCH,),
        ratios=(0.0, 0.95),
        datasets=(str(tiny_dataset),),
        categories=("woven_fabric",),
        weights="none",
        bank_size=5,
        timing=False,
    )


def test_rows_and_failures_reach_the_store_once(
    plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts of a store in SQLite
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    runs = tmp_path / "runs"
    assert sweep(plan, runs, command="compress sweep", tracker=Tracker(uri)) == SweepOutcome(1, 0, 1)
    client: Any = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == EXPERIMENT]
    told = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    (dense, refused) = (told[name] for name in sorted(told))
    row = json.loads((runs / f"{dense.info.run_name}.json").read_text())
    assert dense.info.status == "FINISHED"
    assert dense.data.metrics["image_auroc"] == row["image_auroc"]
    assert dense.data.metrics["params_used"] == row["params_used"]
    assert "ms_total" not in dense.data.metrics, "what was not measured is no metric"
    asked = {name: dense.data.params[name] for name in ("arch", "method", "ratio", "seed", "category", "command")}
    assert asked == {
        "arch": ARCH, "method": "none", "ratio": "0.0", "seed": "0", "category": "woven_fabric",
        "command": "compress sweep",
    }  # fmt: skip
    (artifact,) = client.list_artifacts(dense.info.run_id)
    stored = client.download_artifacts(dense.info.run_id, artifact.path, str(tmp_path))
    assert json.loads(Path(stored).read_text()) == row
    assert refused.info.status == "FAILED"
    assert "largest ratio that leaves one" in refused.data.tags["prunecore.failed"]
    Tracker(uri).done(runs, [dense.info.run_name])
    assert len(client.search_runs([experiment.experiment_id])) == 2, "a row that is there is not told again"


def test_a_store_that_fails_is_noted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    (tmp_path / "a.json").write_text('{"key": "k", "arch": "x"}')
    (tmp_path / "file").touch()
    tracker = Tracker(f"sqlite:///{tmp_path}/file/mlflow.db")
    tracker.done(tmp_path, ["a", "b"])
    tracker.failed(tmp_path, "c")
    told = [line for line in capsys.readouterr().err.splitlines() if "is told no more" in line]
    assert len(told) == 1
    assert str(tmp_path) in told[0]


def test_mlflow_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(CompressError, match=r"pip install 'prunecore\[mlflow\]'"):
        Tracker("sqlite:///x.db")
