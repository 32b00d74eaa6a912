"""What the runtime says when it refuses a file."""

from __future__ import annotations

from prunecore_runtime.one_line import OneLineError


class DetectorError(OneLineError):
    """A request that cannot be met. The message, one printable line, names the value, the limit and the cure."""


class ImageError(DetectorError):
    """An image that cannot be read; the others of a folder may be."""
