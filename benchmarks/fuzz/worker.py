"""One reader, one stretch of inputs, in a process of its own: a crash or a hang ends it, and `__main__` goes on."""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.fuzz import command_line, data, models, records
from benchmarks.fuzz.damage import generator
from benchmarks.fuzz.limits import Outcome, guard_process, watched
from benchmarks.fuzz.reader import Reader

READERS = {**models.READERS, **data.READERS, **records.READERS, **command_line.READERS}


class Stretch(NamedTuple):
    """The inputs of one reader, from `start` to `stop`, for `seconds` at most."""

    name: str
    seed: int
    start: int
    stop: int
    seconds: float


def outcomes(
    reader: Reader, name: str, seed: int, indices: Sequence[int], folder: Path, *, alarm: bool = False
) -> Iterator[tuple[int, Outcome]]:
    """What the reader makes of the inputs of these numbers; each follows from seed, name and number alone."""
    for index in indices:
        place = reader.lay(generator(seed, name, index), folder)
        yield index, watched(reader.read, place, reader.refusals, reader.memory, alarm=alarm)


def run(stretch: Stretch, out: Path) -> None:
    """Failures go to `failures` in `out`, the sums to `sums`, and to `place` how far the stretch is."""
    log = os.open(out / "stderr.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 2)  # what readers and C libraries note
    warnings.simplefilter("ignore")
    logging.disable()
    with tempfile.TemporaryDirectory() as made:
        workshop, folder = Path(made, "workshop"), Path(made, "inputs")
        workshop.mkdir()
        folder.mkdir()
        reader = READERS[stretch.name](workshop)
        os.chdir(folder)
        guard_process()
        sums = {"inputs": 0, "refused": 0, "seconds": 0.0, "slowest": 0.0, "grown": 0}
        deadline = time.monotonic() + stretch.seconds
        indices = range(stretch.start, stretch.stop)
        with (out / "place").open("wb", buffering=0) as place, (out / "failures").open("w", buffering=1) as failures:
            os.pwrite(place.fileno(), struct.pack("q", stretch.start), 0)
            for index, outcome in outcomes(reader, stretch.name, stretch.seed, indices, folder, alarm=True):
                os.pwrite(place.fileno(), struct.pack("q", index + 1), 0)  # before the next one is begun
                sums["inputs"] += 1
                sums["refused"] += outcome.refused
                sums["seconds"] += outcome.seconds
                sums["slowest"] = max(sums["slowest"], outcome.seconds)
                sums["grown"] = max(sums["grown"], outcome.grown)
                if outcome.complaint:
                    kept = _keep(folder / f"input{reader.suffix}", out / f"{stretch.name}-{stretch.seed}-{index}")
                    failures.write(json.dumps({"index": index, "complaint": outcome.complaint, "kept": kept}) + "\n")
                late = time.monotonic() > deadline
                if sums["inputs"] % 100 == 0 or index + 1 == stretch.stop or late:
                    (out / "sums").write_text(json.dumps(sums))
                if late:
                    break
        os.chdir("/")


def _keep(place: Path, target: Path) -> str:
    """A copy of the input, where it is a file or a folder."""
    try:
        if place.is_dir():
            shutil.copytree(
                place,
                target,
                symlinks=True,
                dirs_exist_ok=True,
                ignore=lambda top, names: [
                    name for name in names if Path(top, name).is_fifo() or Path(top, name).is_socket()
                ],
            )
        elif place.is_file():
            shutil.copyfile(place, target)
    except OSError as error:
        return f"not kept: {error}"
    return str(target)
