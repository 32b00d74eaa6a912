"""Engines: every run once, whatever dies; what is lost is begun again and recorded when it is lost for good."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from compress import CompressError
from pipelines.engines import ENGINES, Do, Ended, Engine, Workers, check_engine
from pipelines.engines.interface import BUSY, DONE, LOST
from pipelines.engines.schedule import schedule

PARALLEL = [
    "processes",
    pytest.param(
        "ray",
        marks=pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"),
    ),
]


@dataclass(frozen=True)
class Scripted:
    """A task whose runs do what their names say, and leave a line in `folder` for each time they begin."""

    folder: Path

    def open(self) -> Do:
        (self.folder / f"opened-{os.getpid()}").touch()
        if (self.folder / "unreadable").exists():
            raise ZeroDivisionError("a bug as the data is opened")
        return self.do

    def do(self, name: str, wait: bool) -> Ended:
        with (self.folder / name).open("a") as log:
            log.write(f"{os.getpid()}\n")
        times = len(self.begun(name))
        if name == "dies always" or (name == "dies once" and times == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("meets"):  # ends only while another one is being done
            while not all((self.folder / f"meets {each}").exists() for each in (1, 2)):
                time.sleep(0.01)
        if name == "hangs":
            time.sleep(600)
        return Ended(name, DONE, f"on {_threads()} threads")

    def begun(self, name: str) -> list[int]:
        return [int(line) for line in (self.folder / name).read_text().split()]


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))


def _threads() -> int:
    return torch.get_num_threads()


def _here(name: str, wait: bool) -> Ended:
    raise AssertionError("an engine with workers does nothing in this process")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("engine", PARALLEL)
def test_a_worker_that_dies_loses_nothing(engine: str, tmp_path: Path) -> None:
    task = Scripted(tmp_path)
    started = ENGINES[engine](task, _here, Workers(2))
    try:
        names = ["meets 1", "meets 2", "dies once", "dies always", "plain 1", "plain 2"]
        ended = {each.name: each for each in schedule(started, dict.fromkeys(names, ()), retries=2)}
    finally:
        started.close()
    assert set(ended) == set(names)
    assert {name for name, each in ended.items() if each.state != DONE} == {"dies always"}
    assert ended["dies always"].state == LOST
    assert "died" in ended["dies always"].text or "SIGKILL" in ended["dies always"].text
    assert [len(task.begun(name)) for name in names] == [1, 1, 2, 3, 1, 1]
    assert set(task.begun("meets 1")).isdisjoint(task.begun("meets 2"))
    workers = {int(file.name.removeprefix("opened-")) for file in tmp_path.glob("opened-*")}
    assert os.getpid() not in workers
    if engine == "processes":  # Ray starts workers as it sees fit
        assert len(workers) <= 2 + 4, "a worker opens the data once, and one is started for each that died"
    deadline = time.monotonic() + 20
    while any(map(_is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_is_alive, workers)), "close ends all workers"


def test_workers_divide_the_threads_and_end_in_the_middle_of_a_run(tmp_path: Path) -> None:
    task = Scripted(tmp_path)
    started = ENGINES["processes"](task, _here, Workers(torch.get_num_threads() + 1))
    try:
        started.submit("plain", False)
        (ended,) = started.wait()
        assert ended.text == "on 1 threads"
        started.submit("hangs", False)
        while not (tmp_path / "hangs").exists() or not task.begun("hangs"):
            time.sleep(0.05)
        (process,) = multiprocessing.active_children()
    finally:
        started.close()
    assert process.exitcode not in (None, -signal.SIGKILL), "it ends when asked, and need not be killed"
    assert task.begun("hangs") == task.begun("plain"), "an idle worker is taken before one is started"
    assert not _is_alive(task.begun("hangs")[0])


def test_ctrl_c_does_not_reach_a_worker_that_is_starting(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    started = ENGINES["processes"](Scripted(tmp_path), _here, Workers(1))
    try:
        started.submit("plain", False)
        assert signal.getsignal(signal.SIGINT) is before
        (process,) = multiprocessing.active_children()
        os.kill(process.pid or 0, signal.SIGINT)  # long before it has imported anything of ours
        (ended,) = started.wait()
    finally:
        started.close()
    assert ended.state == DONE
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("engine", PARALLEL)
def test_a_worker_that_cannot_open_the_data_says_why(engine: str, tmp_path: Path) -> None:
    (tmp_path / "unreadable").touch()
    started = ENGINES[engine](Scripted(tmp_path), _here, Workers(1))
    try:
        (ended,) = schedule(started, {"plain": ()}, retries=1)
    finally:
        started.close()
    assert ended.state == LOST
    assert "ZeroDivisionError: a bug as the data is opened" in ended.text
    assert "Traceback" not in ended.text
    assert "in open" in ended.trace, "the trace tells where"
    if engine == "processes":
        assert len(list(tmp_path.glob("opened-*"))) == 1, "no process is started to fail again"


class Slots:
    """An engine that writes down what it is given, and ends the run that was begun first."""

    def __init__(self, slots: int, **outcomes: list[str]) -> None:
        self.slots = slots
        self.together: list[set[str]] = []
        self.waited: list[str] = []
        self._begun: list[str] = []
        self._outcomes = outcomes

    def submit(self, name: str, wait: bool) -> None:
        assert len(self._begun) < self.slots
        self._begun.append(name)
        if wait:
            self.waited.append(name)

    def wait(self) -> list[Ended]:
        self.together.append(set(self._begun))
        name = self._begun.pop(0)
        states = self._outcomes.get(name, [])
        return [Ended(name, states.pop(0) if states else DONE)]

    def close(self) -> None:
        pass


def _schedule(engine: Engine, runs: dict[str, set[str]]) -> Iterator[str]:
    return (f"{ended.name} {ended.state}" for ended in schedule(engine, runs, retries=1))


def test_two_runs_that_make_the_same_backbone_wait_for_others_to_do() -> None:
    engine = Slots(2)
    runs = {"a1": {"a"}, "a2": {"a"}, "b1": {"b"}, "b2": {"b"}}
    assert sorted(_schedule(engine, runs)) == ["a1 done", "a2 done", "b1 done", "b2 done"]
    assert engine.together[:2] == [{"a1", "b1"}, {"b1", "a2"}], "once a is made, all that read it may run"


def test_with_nothing_else_to_do_a_worker_waits_for_the_backbone() -> None:
    engine = Slots(2)
    assert list(_schedule(engine, {"a1": {"a"}, "a2": {"a"}})) == ["a1 done", "a2 done"]
    assert engine.together[0] == {"a1", "a2"}


def test_what_another_sweep_is_at_comes_last_and_is_waited_for() -> None:
    engine = Slots(1, a=[BUSY], b=[LOST, BUSY])
    assert list(_schedule(engine, {"a": set(), "b": set(), "c": set()})) == ["c done", "a done", "b done"]
    assert engine.waited == ["a", "b"]


def test_what_is_lost_too_often_is_given_up() -> None:
    engine = Slots(1, a=[LOST, LOST, DONE], b=[LOST, DONE])
    assert list(_schedule(engine, {"a": set(), "b": set()})) == ["a lost", "b done"]


@pytest.mark.parametrize(
    ("engine", "workers", "message"),
    [
        ("proceses", Workers(), "did you mean processes"),
        ("serial", Workers(4), "the engine is serial"),
        ("processes", Workers(0), "0 workers can do nothing"),
        ("processes", Workers(2, address="auto"), "are for Ray"),
        ("serial", Workers(num_gpus=1), "are for Ray"),
        ("ray", Workers(num_gpus=-1), "-1 GPUs"),
    ],
)
def test_what_an_engine_has_no_use_for_is_refused(engine: str, workers: Workers, message: str) -> None:
    with pytest.raises(CompressError, match=message):
        check_engine(engine, workers)


def test_ray_that_is_not_installed_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CompressError, match=r"pip install 'prunecore\[ray\]'"):
        ENGINES["ray"](Scripted(tmp_path), _here, Workers())


def test_more_gpus_than_there_are_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.raises(CompressError, match="1000 GPUs for a run, but this Ray has"):
        ENGINES["ray"](Scripted(tmp_path), _here, Workers(num_gpus=1000))
