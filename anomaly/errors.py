"""What `anomaly` says when it refuses a request."""

from __future__ import annotations

from prunecore_runtime.one_line import one_line


class AnomalyError(Exception):
    """A request that cannot be met. The message, one printable line, names the value, the limit and the cure."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))
