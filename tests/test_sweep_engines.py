"""Sweeps whose workers or drivers are killed, and several sweeps at a time: nothing is lost and nothing done twice."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines import Workers
from pipelines.run_records import RUNNING, read_records
from pipelines.status import folder_status
from pipelines.sweep import SweepOutcome, sweep
from pipelines.sweep_plan import SweepPlan

ARCH = "mobilenet_v3_small"
RAY = pytest.param(
    "ray", marks=pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
)


@pytest.fixture
def plan(tiny_dataset: Path) -> SweepPlan:
    return SweepPlan(
        archs=(ARCH,), ratios=(0.0, 0.5), datasets=(str(tiny_dataset),), weights="none", bank_size=5, timing=False
    )


@pytest.fixture
def command(plan: SweepPlan) -> list[str]:
    """The same plan as a command."""
    code = "from pipelines.cli import app; app()"
    given = ["sweep", "--arch", ARCH, "--ratios", "0,0.5", "--dataset", plan.datasets[0], "--weights", "none"]
    return [sys.executable, "-c", code, *given, "--bank-size", "5", "--no-timing", "-o"]


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The command as a process in a group of its own, as a shell starts it."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A suite that runs in the background of a shell hands down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(true: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def rows(folder: Path) -> dict[str, int]:
    """The time of writing of each row, under its name."""
    files = [file for file in folder.glob("*.json") if not file.name.endswith(".failed.json")]
    return {file.stem: file.stat().st_mtime_ns for file in files}


def at_work(folder: Path) -> set[int]:
    """The processes that are recorded as doing a run."""
    return {record.pid for record in read_records(folder).values() if record.state == RUNNING}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def made(folder: Path) -> list[str]:
    """The names of the backbones as often as each was made."""
    return sorted(each.name for record in read_records(folder).values() for each in record.made)


# Ray starts its workers slowly where a whole suite runs beside it.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["processes", RAY])
def test_a_worker_is_killed_in_the_middle_of_a_run(
    engine: str, plan: SweepPlan, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        until(lambda: at_work(tmp_path), seconds=400)
        killed.append(at_work(tmp_path).pop())
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    outcome = sweep(plan, tmp_path, command="", engine=engine, workers=Workers(2))
    killer.join()
    assert killed[0] != os.getpid()
    assert (outcome.run + outcome.kept, outcome.failed) == (4, 0)
    told = capfd.readouterr().err
    assert "begun again" in told
    assert told.count("weights none") == 1, "workers do not repeat what was told"
    assert "FutureWarning" not in told
    assert folder_status(tmp_path).counts["done"] == len(rows(tmp_path)) == 4
    assert len(made(tmp_path)) == len(set(made(tmp_path))), "no backbone is made twice"
    assert {json.loads((tmp_path / f"{name}.json").read_text())["ratio"] for name in rows(tmp_path)} == {0.0, 0.5}
    # In this process the same plan has the same keys: whichever engine did a run, it is not done again.
    assert sweep(plan, tmp_path, command="") == SweepOutcome(run=0, kept=4, failed=0)


def test_a_killed_sweep_takes_its_workers_along_and_goes_on(
    plan: SweepPlan, command: list[str], tmp_path: Path
) -> None:
    with started([*command, str(tmp_path), "--engine", "processes", "--workers", "2"]) as process:
        until(lambda: rows(tmp_path) and at_work(tmp_path))
        process.kill()
        workers = at_work(tmp_path)
        process.wait()
        until(lambda: not any(map(is_alive, workers)), 30)
    finished = rows(tmp_path)
    found = folder_status(tmp_path)
    assert found.going_on == ()
    assert found.counts["done"] == len(finished) >= 1
    assert found.counts["running"] == 0
    assert found.counts["done"] + found.counts["interrupted"] + found.counts["waiting"] == 4
    outcome = sweep(plan, tmp_path, command="")
    assert outcome == SweepOutcome(run=4 - len(finished), kept=len(finished), failed=0)
    assert finished.items() <= rows(tmp_path).items(), "what was finished is not written again"


def test_ctrl_c_ends_a_sweep_with_all_its_workers(command: list[str], tmp_path: Path) -> None:
    with started([*command, str(tmp_path), "--engine", "processes", "--workers", "2"]) as process:
        until(lambda: at_work(tmp_path))
        workers = at_work(tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip().splitlines()[-1] == "compress: interrupted"
    assert "Traceback" not in errors
    assert not any(map(is_alive, workers))
    assert not list(tmp_path.rglob(".*")), "no file is half written"


def test_two_sweeps_at_a_time_share_the_work(plan: SweepPlan, command: list[str], tmp_path: Path) -> None:
    with started([*command, str(tmp_path)]) as process:
        until(lambda: at_work(tmp_path))
        until(lambda: folder_status(tmp_path).counts["running"] == 1)  # between two runs it is none
        assert len(folder_status(tmp_path).going_on) == 1
        more = dataclasses.replace(plan, ratios=(0.0, 0.3, 0.5))
        outcome = sweep(more, tmp_path, command="")
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert (outcome.run + outcome.kept, outcome.failed) == (6, 0)
    (told,) = [line for line in errors.splitlines() if "runs done" in line]
    theirs = int(told.split()[0])
    assert theirs >= 1
    assert outcome.run + theirs == 6, "each run is done by one of them"
    assert made(tmp_path) == [f"{ARCH}-{cut}-s0" for cut in ("dense", "magnitude-0.3", "magnitude-0.5")]
