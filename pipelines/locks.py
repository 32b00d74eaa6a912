"""Locks between processes: the operating system's, on a file each, which end with the process that holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def trying(file: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock `file` for the time of the block, and tell whether that was possible; `wait` until it is."""
    lock = FileLock(file)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(file: Path) -> bool:
    """Whether some process holds the lock `file`; makes none."""
    try:
        if not file.is_file():
            return False
        with trying(file) as free:
            return not free
    except OSError:  # a folder that may only be read: who works in it cannot be told
        return False
