"""What `anomaly` says when it refuses a request."""

from __future__ import annotations

from prunecore_runtime.one_line import OneLineError


class AnomalyError(OneLineError):
    """A request that cannot be met. The message, one printable line, names the value, the limit and the cure."""
