"""What `reports` says when it refuses a request."""

from __future__ import annotations

from prunecore_runtime.one_line import OneLineError


class ReportError(OneLineError):
    """A report that cannot be made. The message, one printable line, names the value, the limit and the cure."""
