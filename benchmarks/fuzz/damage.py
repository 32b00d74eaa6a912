"""Ways to damage bytes, text and JSON values. Every choice is drawn from the given generator: one seed, one damage."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from random import Random
from typing import Any

_INTEGERS = (0, 1, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_TOKENS = (
    *(b"NaN", b"-Infinity", b"1e999", b"-1", b"9" * 5000, b"../../", b"/etc/passwd", b"C:\\", b"\0", b"\xff\xfe"),
    *(b"\n", b'"', b"{", b"[", b"[" * 3000, b'{"a":' * 3000, b"}", b"%s", b"{0}", b"\x1b[2J", b"\xed\xa0\x80"),
)
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 4097, 2**31, 2**63, 2**64, 10**30, 10**400, -(10**400)),
    *(0.5, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf),
    *("", "x", "nan", "1e999", "../..", "/etc/passwd", "a\0b", "line\nbreak", "\x1b[2J\x1b[31m", "\ud800", "é" * 300),
    *("x" * 100_000, "[bold]x[/bold]", [], {}, [[]], [None], [0] * 1000, {"": {}}, {"x": "y"}, [1, "a", None]),
)
_DEEP = ('{"a":' * 50_000, "[" * 50_000, "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900)


def generator(*words: object) -> Random:
    """The random numbers that belong to these words."""
    return Random("/".join(map(str, words)))  # noqa: S311 damage is no secret


def damaged(rng: Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """`content` after one to three of: cut, bits turned, bytes replaced, put in, taken out, doubled, or spliced in."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(_WAYS)(rng, content)
    if others and rng.random() < 0.05:
        other = rng.choice(others)
        content = content[: _place(rng, content)] + other[_place(rng, other) :]
    return content


def _place(rng: Random, content: bytes) -> int:
    """Often near the beginning or the end, where headers and tables of contents lie."""
    kind, length = rng.random(), len(content)
    if kind < 0.4:
        return rng.randrange(min(length, 512) + 1)
    return length - rng.randrange(min(length, 512) + 1) if kind < 0.6 else rng.randrange(length + 1)


def _cut(rng: Random, content: bytes) -> bytes:
    return content[: rng.choice((0, 1, 4, 8, 9, len(content) - 1, _place(rng, content)))]


def _turn_bits(rng: Random, content: bytes) -> bytes:
    turned = bytearray(content)
    for _ in range(rng.randint(1, 8) if turned else 0):
        turned[min(_place(rng, content), len(turned) - 1)] ^= 1 << rng.randrange(8)
    return bytes(turned)


def _replace(rng: Random, content: bytes) -> bytes:
    place, new = _place(rng, content), rng.randbytes(rng.randint(1, 16))
    return content[:place] + new + content[place + len(new) :]


def _write_integer(rng: Random, content: bytes) -> bytes:
    width = rng.choice((1, 2, 4, 8))
    number = rng.choice(_INTEGERS) % 2 ** (8 * width)
    place = _place(rng, content)
    return content[:place] + number.to_bytes(width, rng.choice(("little", "big"))) + content[place + width :]


def _put_in(rng: Random, content: bytes) -> bytes:
    place = _place(rng, content)
    return content[:place] + rng.choice((rng.choice(_TOKENS), rng.randbytes(rng.randint(1, 64)))) + content[place:]


def _take_out(rng: Random, content: bytes) -> bytes:
    place = _place(rng, content)
    return content[:place] + content[place + rng.choice((1, 2, 4, 16, 300)) :]


def _double(rng: Random, content: bytes) -> bytes:
    place = _place(rng, content)
    return content[:place] + content[place : place + rng.randint(1, 2000)] + content[place:]


_WAYS = (_cut, _turn_bits, _replace, _write_integer, _put_in, _take_out, _double)


def odd_value(rng: Random) -> Any:
    """A JSON value that hardly anybody expects: an absurd number, an escape sequence, a path, an empty container."""
    return copy.deepcopy(rng.choice(_ODD))


def damaged_json(rng: Random, value: Any) -> str:
    """The text of `value` after one to three edits; now and then no longer JSON, or nested beyond reason."""
    edited = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        edited = _edit(rng, edited)
    text = json.dumps(edited)
    kind = rng.random()
    if kind < 0.03:
        return rng.choice(_DEEP)
    if kind < 0.06:  # the value of some key becomes a deep nest
        return text.replace(": ", f': {rng.choice(_DEEP[2:])}, "z": ', 1)
    if kind < 0.10 and text.startswith("{") and len(text) > 2:  # a key twice
        return f'{{"{rng.choice(list(edited))}": {json.dumps(odd_value(rng))}, {text[1:]}'
    if kind < 0.18:
        return damaged(rng, text.encode()).decode("utf-8", "surrogateescape")
    return text


def _edit(rng: Random, value: Any) -> Any:
    """One value somewhere in `value` replaced, taken out, doubled or renamed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.02:
        return odd_value(rng)
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.75:
        value[key] = _edit(rng, value[key])
        return value
    kind = rng.random()
    if kind < 0.6:
        value[key] = odd_value(rng)
    elif kind < 0.75:
        del value[key]
    elif isinstance(value, list):
        value.insert(key, copy.deepcopy(value[rng.choice(keys)]))
    else:
        name = rng.choice(("", "x", "__class__", "../x", "a\0b", "self", *map(str, keys)))
        value[name] = value.pop(key) if kind < 0.9 else value[key]
    return value
