"""What FAISS complains of, in its own words but without the C++ around them."""

from __future__ import annotations


def reason_of(error: RuntimeError) -> str:
    """The reason behind `Error in FUNCTION at FILE:LINE: [Error: ]REASON`.

    >>> reason_of(RuntimeError("Error in void f() at /project/f.cpp:7: Error: 'd > 0' failed: no dimensions"))
    "'d > 0' failed: no dimensions"
    """
    first = (str(error).splitlines() or [""])[0]
    _, _, behind = first.partition(".cpp:")
    _, _, reason = behind.partition(": ")
    return reason.removeprefix("Error: ").strip() or first or "not understood"
