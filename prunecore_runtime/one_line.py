"""A message in one printable line, whatever stands in the file or the name that it tells of."""

from __future__ import annotations

_LIMIT = 2000  # characters
_TAIL = 500  # of these: a message ends with the cure
_GAP = " ... "


def one_line(message: str) -> str:
    """Line breaks become spaces, what is not printable its escape, and a long middle three dots.

    What is quoted comes out of files that anybody may have made: it must not move a terminal's cursor or fill it.

    >>> one_line("format \\x1b[2J,\\nthis version reads 1")
    'format \\\\x1b[2J, this version reads 1'
    """
    spaced = _cut(message).replace("\n", " ").replace("\t", " ")
    return _cut("".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in spaced))


class OneLineError(Exception):
    """A refusal, whose message is one printable line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def _cut(text: str) -> str:
    return text if len(text) <= _LIMIT else f"{text[: _LIMIT - _TAIL - len(_GAP)]}{_GAP}{text[-_TAIL:]}"
