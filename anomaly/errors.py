"""What `anomaly` says when it refuses a request."""

from __future__ import annotations


class AnomalyError(Exception):
    """A request that cannot be met. The message names the value, the limit and the cure."""
