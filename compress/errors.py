"""What `compress` says when it refuses a request."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from prunecore_runtime.one_line import OneLineError


class CompressError(OneLineError):
    """A request that cannot be met. The message, one printable line, names the value, the limit and the cure."""


class RatioError(CompressError):
    """A ratio that this network or this rule cannot be cut by; a smaller one may do."""


def unknown(kind: str, name: str, known: Iterable[str], cure: str) -> CompressError:
    """An error for a `name` that is not among the `known` ones, with the near misses."""
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    guess = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names[:12])}"
    return CompressError(f"unknown {kind} {name!r}: {guess} ({cure})")


def some_of(names: Iterable[str], limit: int = 8) -> str:
    """The first `limit` names and how many more there are, for a message of one line."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
