"""How long work tells its progress, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")

Description = str | Callable[[], str]
"""What is going on; a function where it changes with the steps, like a radius that falls."""


class Track(Protocol):
    """Wraps a loop: yields every item of `steps` and may show how far it is."""

    def __call__(self, steps: Iterable[T], description: Description, total: int) -> Iterator[T]: ...


def quiet(steps: Iterable[T], description: Description, total: int) -> Iterator[T]:
    """Shows nothing."""
    yield from steps
