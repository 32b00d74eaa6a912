"""A TOML file whose keys are the fields of a dataclass: read, and checked key by key."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from compress.errors import CompressError, unknown
from prunecore_runtime.regular_file import why_no_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LONGEST, _DOTS = 100_000, 1000


def read_fields(file: Path, kind: type, *, besides: Collection[str] = ()) -> dict[str, Any]:
    """The values in `file` for the fields of the dataclass `kind`, but not for those `besides`.

    A field is a str, int, float or bool, a tuple of these (in TOML a list, or one value), or one of all that or None.
    Whole numbers do for a float.

    Raises:
        CompressError: no such file, no TOML, a key is unknown or missing, or its value is of another type.
    """
    try:
        if complaint := why_no_file(file, most=4 * _LONGEST):  # a character has 4 bytes at most
            raise CompressError(complaint)
        given = tomllib.loads(_checked(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise CompressError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no TOML, no text, a number of 5,000 digits, a nest without end
        raise CompressError(f"{file} is no TOML: {error}") from error
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in besides}
    for key in given:
        if key not in fields:
            raise unknown("key", key, fields, f"in {file}")
    missing = [key for key, field in fields.items() if field.default is dataclasses.MISSING and key not in given]
    if missing:
        raise CompressError(f"{file} lacks {', '.join(missing)}: add them")
    hints = get_type_hints(kind)
    return {key: _value(hints[key], value, _told(file, key, value)) for key, value in given.items()}


def _checked(text: str) -> str:
    # The parser takes time and memory with the square of a key's parts: 40 kB of a.a.a.a took 25 s and 1.5 GB.
    if len(text) > _LONGEST or any(line.count(".") > _DOTS for line in text.split("\n")):
        raise ValueError(f"it has more than {_LONGEST} characters, or {_DOTS} dots in a line")
    return text


def _told(file: Path, key: str, value: Any) -> str:
    """Key and value, for messages."""
    try:
        return f"{file}: {key} = {value!r}"
    except ValueError as error:  # in hexadecimal the parser takes what Python then refuses to write down
        raise CompressError(f"{file}: {key} holds a number of thousands of digits: TOML's have 64 bits") from error


def _value(hint: Any, value: Any, told: str) -> Any:
    if NoneType in get_args(hint):  # in TOML a key that is None is left out
        hint = next(each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is not tuple:
        if not _fits(hint, value):
            raise CompressError(f"{told}: {hint.__name__} is needed")
        return _made(hint, value, told)
    kind, items = get_args(hint)[0], value if isinstance(value, list) else [value]
    if not all(_fits(kind, item) for item in items):
        raise CompressError(f"{told}: a list of {kind.__name__} is needed")
    return tuple(_made(kind, item, told) for item in items)


def _made(kind: type, value: Any, told: str) -> Any:
    try:
        return kind(value)
    except OverflowError as error:
        raise CompressError(f"{told}: no float is so large") from error


def _fits(kind: type, value: Any) -> bool:
    # A bool is an int to Python, but none to the user.
    return type(value) is kind or (kind is float and type(value) is int)
