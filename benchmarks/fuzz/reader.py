"""A reader under test: what is put before it, how it is called, and what it may answer."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

MIB = 1 << 20
_ODD_SHARE = 0.005  # of inputs that are no file, or not there


@dataclass(frozen=True)
class Reader:
    """A reader of files or folders.

    Attributes:
        suffix: of the damaged input's name, such as `.png`.
        harm: writes a damaged input to a path that does not exist yet.
        read: the reader; its answer is thrown away.
        refusals: what it may raise, with a message of one line.
        memory: bytes that it may take beyond what the process has.
    """

    suffix: str
    harm: Callable[[Random, Path], None]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...]
    memory: int = 256 * MIB

    def lay(self, rng: Random, folder: Path) -> Path:
        """Put a damaged input into `folder`, in the place of the former one."""
        place = folder / f"input{self.suffix}"
        clear(place)
        (lay_odd if rng.random() < _ODD_SHARE else self.harm)(rng, place)
        return place


def in_a_file(harm: Callable[[Random], bytes]) -> Callable[[Random, Path], None]:
    """Bytes as a file."""

    def write(rng: Random, place: Path) -> None:
        place.write_bytes(harm(rng))

    return write


def lay_odd(rng: Random, place: Path) -> None:
    """What is no file: a folder, a pipe, a socket, a link to a device, to itself or to nothing; or nothing at all."""
    kind = rng.randrange(8)
    if kind == 0:
        place.mkdir()
    elif kind == 1:
        os.mkfifo(place)
    elif kind == 2:
        place.symlink_to(place.name)
    elif kind == 3:
        place.symlink_to("nowhere")
    elif kind == 4:
        place.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/tty")))
    elif kind == 5:
        place.write_bytes(b"")
    elif kind == 6:
        here = os.open(place.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as bound, contextlib.suppress(OSError):  # a name may have 107 characters
            bound.bind(f"/proc/self/fd/{here}/{place.name}")
        os.close(here)


def clear(place: Path) -> None:
    """Take away what lies at `place`, of whatever kind."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
