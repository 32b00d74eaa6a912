"""The machines of a Ray cluster, or a Ray that is started on this one."""

from __future__ import annotations

import os
from dataclasses import astuple
from typing import Any

from compress.errors import CompressError
from pipelines.engines.interface import DEFAULT_WORKERS, LOST, Do, Ended, Task, Workers, is_refusal, reason
from pipelines.places import variables


class Ray:
    """Each run is a Ray task of its own. A worker or a machine that dies loses the run that it was at.

    The machines of a cluster have prunecore installed, and data and results under the same paths.
    """

    def __init__(self, task: Task, do: Do, workers: Workers) -> None:
        # Ray reports its use to its makers unless told otherwise: what a factory measures is nobody's business.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise CompressError("engine ray needs Ray: pip install 'prunecore[ray]'") from error
        self.slots = workers.count or DEFAULT_WORKERS
        self._ray: Any = ray
        try:
            ray.init(
                address=workers.address or "local",
                # The variables of this process reach workers that it starts, not those of a cluster.
                runtime_env={"env_vars": variables()} if workers.address else None,
                include_dashboard=None if workers.address else False,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise CompressError(f"no Ray at {workers.address or 'this machine'}: {_first_line(error)}") from error
        self._threads_each = self._threads()
        gpus = self._ray.cluster_resources().get("GPU", 0.0)
        if workers.num_gpus > gpus:
            self.close()
            raise CompressError(f"{workers.num_gpus:g} GPUs for a run, but this Ray has {gpus:g}: give fewer")
        self._task = ray.put(task)
        # Lost runs are begun again by `schedule`, which counts; Ray would do it unseen.
        self._do = ray.remote(_do).options(num_cpus=self._threads_each, num_gpus=workers.num_gpus, max_retries=0)
        self._begun: dict[Any, str] = {}

    def submit(self, name: str, wait: bool) -> None:
        self._begun[self._do.remote(self._task, self._threads_each, name, wait)] = name

    def wait(self) -> list[Ended]:
        ready, _ = self._ray.wait(list(self._begun), num_returns=1)
        return [self._ended(each) for each in ready]

    def close(self) -> None:
        self._ray.shutdown()

    def _ended(self, reference: Any) -> Ended:
        name = self._begun.pop(reference)
        try:
            return Ended(*self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:  # the run raised, and this is its trace as text
            trace = "" if is_refusal(error.cause) else str(error)
            return Ended(name, LOST, f"its worker failed: {reason(error.cause)}", trace)
        except self._ray.exceptions.RayError as error:
            return Ended(name, LOST, f"its worker died: {_first_line(error)}")

    def _threads(self) -> int:
        """What each run may use of the processors, if all have equal shares; no more than a single machine has."""
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return int(max(1, min(sum(nodes) // self.slots, max(nodes))))


def _do(task: Task, threads: int, name: str, wait: bool) -> tuple[str, ...]:
    import torch

    torch.set_num_threads(threads)
    return astuple(_opened(task)(name, wait))


_OPEN: dict[Task, Do] = {}


def _opened(task: Task) -> Do:
    """Opened once in each worker process, which does many runs."""
    if task not in _OPEN:
        _OPEN.clear()
        _OPEN[task] = task.open()
    return _OPEN[task]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
