"""A message in one printable line, whatever stands in the file or the name that it tells of."""

from __future__ import annotations

_LIMIT = 2000  # characters
_TAIL = 500  # of these: a message ends with the cure


def one_line(message: str) -> str:
    """Line breaks become spaces, what is not printable its escape, and a long middle three dots.

    What is quoted comes out of files that anybody may have made: it must not move a terminal's cursor or fill it.

    >>> one_line("format \\x1b[2J,\\nthis version reads 1")
    'format \\\\x1b[2J, this version reads 1'
    """
    if len(message) > _LIMIT:
        message = f"{message[: _LIMIT - _TAIL]} ... {message[-_TAIL:]}"
    if message.isprintable():
        return message
    spaced = message.replace("\n", " ").replace("\t", " ")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in spaced)
