"""How long work tells its progress, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps a loop: yields every item of `steps` and may show how far it is."""

    def __call__(self, steps: Iterable[T], description: str, total: int) -> Iterator[T]: ...


def quiet(steps: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Shows nothing."""
    yield from steps
