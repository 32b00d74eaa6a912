"""Several processes on this machine, which divide its threads among themselves."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from pipelines import machine
from pipelines.engines.interface import DEFAULT_WORKERS, LOST, Do, Ended, Task, Workers, is_refusal, reason

# timm and fvcore script functions as they are imported, which torch calls deprecated in every worker.
_QUIET = "ignore::FutureWarning:torch.jit._script"
_GRACE = 10.0  # seconds for a worker to remove its temporary files before it is killed


class Processes:
    """Workers that are spawned, never forked: a fork of a process with threads may hang.

    A worker that dies is replaced. All end with this process, killed or not.
    """

    def __init__(self, task: Task, do: Do, workers: Workers) -> None:
        self.slots = workers.count or DEFAULT_WORKERS
        self._task = task
        if _QUIET not in sys.warnoptions:
            sys.warnoptions.append(_QUIET)  # spawned processes begin with these options
        self._workers: list[_Worker] = []

    def submit(self, name: str, wait: bool) -> None:
        idle = [worker for worker in self._workers if worker.run is None]
        worker = idle[0] if idle else self._start()
        worker.run = name
        with contextlib.suppress(OSError):  # it died while it was idle, which `wait` finds out
            worker.line.send_bytes(json.dumps([name, wait]).encode())

    def wait(self) -> list[Ended]:
        lines = {worker.line: worker for worker in self._workers if worker.run is not None}
        return [self._ended(lines[line]) for line in wait(list(lines)) if isinstance(line, Connection)]

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_GRACE)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            worker.line.close()
        self._workers.clear()

    def _start(self) -> _Worker:
        spawning = multiprocessing.get_context("spawn")
        ours, theirs = spawning.Pipe()
        threads = max(1, machine.threads() // self.slots)
        process = spawning.Process(target=_work, args=(self._task, theirs, threads), daemon=True)
        with _ignoring_ctrl_c():  # which the child inherits: it is told of Ctrl-C before it has imported anything
            process.start()
        theirs.close()  # so that the line breaks when the worker dies
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _ended(self, worker: _Worker) -> Ended:
        name, worker.run = worker.run or "", None
        try:
            return Ended(**json.loads(worker.line.recv_bytes()))
        except (EOFError, OSError):
            worker.process.join()
            worker.line.close()
            self._workers.remove(worker)
            return Ended(name, LOST, _death(worker.process.exitcode))


@dataclass
class _Worker:
    process: SpawnProcess
    line: Connection
    run: str | None = None


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its worker was killed by {signal.Signals(-code).name} (SIGKILL is often the system, out of memory)"
    return f"its worker ended with exit code {code}"


def _work(task: Task, line: Connection, threads: int) -> None:
    """Do what comes down the line, until it breaks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for one that was started from another thread
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that temporary files are removed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        do: Do | None = None
        while True:
            name, wait = json.loads(line.recv_bytes())
            try:
                do = do or task.open()
                ended = do(name, wait)
            except Exception as error:  # told, as an exit code would not say why
                trace = "" if is_refusal(error) else traceback.format_exc()
                ended = Ended(name, LOST, f"its worker failed: {reason(error)}", trace)
            line.send_bytes(json.dumps(asdict(ended)).encode())


@contextlib.contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    """Ctrl-C reaches the whole group, but it is this process that ends its workers, in order.

    One in the milliseconds of the block is lost, and has to be pressed again.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
