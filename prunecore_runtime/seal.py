"""The seal of an exported detector: its own checksum, so that a damaged file is told from a whole one.

An ONNX file is a Protocol Buffers message, and two messages one behind the other are one message with the fields of
both. The seal is such a second message: one entry of `metadata_props` with the SHA-256 of all bytes before it.
"""

from __future__ import annotations

import hashlib

_KEY = b"prunecore-sha256"


def sealed(model: bytes) -> bytes:
    """`model`, a serialised ONNX model, with its seal behind it."""
    return model + _seal(model)


def is_whole(content: bytes) -> bool:
    """Whether `content` is what `sealed` returned."""
    length = len(_seal(b""))
    return content[-length:] == _seal(content[:-length])


def _seal(model: bytes) -> bytes:
    digest = hashlib.sha256(model).hexdigest().encode()
    entry = _field(1, _KEY) + _field(2, digest)  # StringStringEntryProto: key, value
    return _field(14, entry)  # ModelProto: metadata_props


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field; both of its varints have one byte here."""
    return bytes([number << 3 | 2, len(content)]) + content
