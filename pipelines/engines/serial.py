"""One run after another, in this process: the default, and what stage times are to be measured with."""

from __future__ import annotations

from pipelines.engines.interface import Do, Ended, Task, Workers


class Serial:
    """The engine that has no workers: `wait` does the run."""

    slots = 1

    def __init__(self, task: Task, do: Do, workers: Workers) -> None:
        self._do = do
        self._begun: list[tuple[str, bool]] = []

    def submit(self, name: str, wait: bool) -> None:
        self._begun.append((name, wait))

    def wait(self) -> list[Ended]:
        return [self._do(*self._begun.pop())]

    def close(self) -> None:
        pass
