"""What an engine is told and what it tells: the names of runs, never networks or images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from anomaly.errors import AnomalyError
from compress.errors import CompressError

DONE, KEPT, FAILED, BUSY, LOST = "done", "kept", "failed", "busy", "lost"
DEFAULT_WORKERS = 2


@dataclass(frozen=True)
class Ended:
    """How a run ended: `text` says what came of it, or why it failed; `trace` is that of a bug, which is long.

    `state` is done; kept (another sweep had finished it); failed; busy (another sweep is at work on it); or lost (its
    worker died or failed itself).
    """

    name: str
    state: str
    text: str = ""
    trace: str = ""


Do = Callable[[str, bool], Ended]
"""Does the run of this name; where another sweep is at work on it, it waits if the second argument says so."""


def reason(error: BaseException) -> str:
    """Why a run failed, in one line if we refused it."""
    return str(error) if is_refusal(error) else f"{type(error).__name__}: {error}"


def is_refusal(error: BaseException | None) -> bool:
    """Whether the error says all that there is to say, so that nobody needs its trace."""
    return isinstance(error, (CompressError, AnomalyError))


class Task(Protocol):
    """What a worker begins with. It travels to other processes, so it consists of plain values."""

    def open(self) -> Do:
        """Open datasets and weights, once for each worker."""


@dataclass(frozen=True)
class Workers:
    """How many there are (None: one, or `DEFAULT_WORKERS` where there can be several).

    For Ray: the address of its cluster, and the GPUs that each run has there.
    """

    count: int | None = None
    address: str | None = None
    num_gpus: float = 0.0


class Engine(Protocol):
    """Computes runs. `slots` are the runs that it can be given at a time."""

    @property
    def slots(self) -> int: ...

    def submit(self, name: str, wait: bool) -> None:
        """Begin a run; at most `slots` may have been begun and not have ended."""

    def wait(self) -> list[Ended]:
        """The runs that ended, at least one; waits for it. One that raises is lost, as one whose worker dies."""

    def close(self) -> None:
        """End all workers, whatever they are at."""
