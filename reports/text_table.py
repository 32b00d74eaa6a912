"""A table as plain text, cell by cell: what Markdown and a terminal draw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextTable:
    """Headers and rows of equal length; `numeric` columns are set flush right."""

    headers: list[str]
    rows: list[list[str]]
    numeric: list[bool]
