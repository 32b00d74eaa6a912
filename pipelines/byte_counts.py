"""Amounts of memory as people write them: 512M, 4G, 1.5GiB."""

from __future__ import annotations

import re

from compress.errors import CompressError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def byte_count(text: str) -> int:
    """The bytes that `text` means; K, M, G and T are powers of 1024.

    Raises:
        CompressError: it is no amount, or none at all.

    >>> byte_count("1.5G")
    1610612736
    """
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    count = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if count < 1:
        raise CompressError(f"memory {text!r} is no amount: write 512M or 4G")
    return count
