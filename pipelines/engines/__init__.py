"""Where the runs of a sweep are computed: a file for each engine, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from compress.errors import CompressError, unknown
from pipelines.engines.interface import DEFAULT_WORKERS, Do, Ended, Engine, Task, Workers
from pipelines.engines.processes import Processes
from pipelines.engines.ray import Ray
from pipelines.engines.serial import Serial

__all__ = ["DEFAULT_WORKERS", "ENGINES", "ONE", "SERIAL", "Do", "Ended", "Engine", "Task", "Workers", "check_engine"]

SERIAL = "serial"
ONE = Workers()
ENGINES: Mapping[str, Callable[[Task, Do, Workers], Engine]] = {
    SERIAL: Serial,
    "processes": Processes,
    "ray": Ray,
}


def check_engine(name: str, workers: Workers) -> None:
    """Refuse, before any work, an engine that there is not, and what it has no use for.

    Raises:
        CompressError: see above.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES, "compress sweep --help tells")
    if name == SERIAL and workers.count is not None:
        raise CompressError(f"--workers {workers.count}, but the engine is serial: add --engine processes, or drop it")
    if workers.count is not None and workers.count < 1:
        raise CompressError(f"{workers.count} workers can do nothing: give at least 1")
    if name != "ray" and (workers.address is not None or workers.num_gpus):
        raise CompressError(f"--address and --num-gpus are for Ray, and the engine is {name}: add --engine ray")
    if workers.num_gpus < 0:
        raise CompressError(f"{workers.num_gpus:g} GPUs for a run: give 0 or more")
