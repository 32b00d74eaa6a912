"""One reader, one stretch of inputs, in a process of its own: a crash or a hang ends it, and `__main__` goes on."""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from benchmarks.fuzz import command_line, data, models, records
from benchmarks.fuzz.limits import Outcome, guard_process, watched
from benchmarks.fuzz.reader import Reader

READERS = {**models.READERS, **data.READERS, **records.READERS, **command_line.READERS}


def outcomes(
    reader: Reader, name: str, seed: int, indices: Sequence[int], folder: Path, *, alarm: bool = False
) -> Iterator[tuple[int, Outcome]]:
    """What the reader makes of the inputs of these numbers; each follows from seed, name and number alone."""
    for index in indices:
        place = reader.lay(Random(f"{seed}/{name}/{index}"), folder)  # noqa: S311 damage is no secret
        yield index, watched(reader.read, place, reader.refusals, reader.memory, alarm=alarm)


def main(arguments: Sequence[str]) -> None:
    """NAME SEED START STOP SECONDS FOLDER: failures go to stdout as JSON lines, the place and the sums into FOLDER."""
    name, seed, start, stop, seconds, out = (
        arguments[0],
        *map(int, arguments[1:4]),
        float(arguments[4]),
        Path(arguments[5]),
    )
    warnings.simplefilter("ignore")
    logging.disable()
    with tempfile.TemporaryDirectory() as made:
        workshop, folder = Path(made, "workshop"), Path(made, "inputs")
        workshop.mkdir()
        folder.mkdir()
        reader = READERS[name](workshop)
        os.chdir(folder)
        guard_process()
        place = os.open(out / "place", os.O_CREAT | os.O_WRONLY)
        sums = {"inputs": 0, "refused": 0, "seconds": 0.0, "slowest": 0.0, "grown": 0}
        os.pwrite(place, struct.pack("q", start), 0)
        deadline = time.monotonic() + seconds
        for index, outcome in outcomes(reader, name, seed, range(start, stop), folder, alarm=True):
            os.pwrite(place, struct.pack("q", index + 1), 0)  # before the next one is begun
            sums["inputs"] += 1
            sums["refused"] += outcome.refused
            sums["seconds"] += outcome.seconds
            sums["slowest"] = max(sums["slowest"], outcome.seconds)
            sums["grown"] = max(sums["grown"], outcome.grown)
            if outcome.complaint:
                kept = _keep(folder / f"input{reader.suffix}", out / f"{name}-{seed}-{index}{reader.suffix}")
                print(json.dumps({"index": index, "complaint": outcome.complaint, "kept": kept}), flush=True)
            if sums["inputs"] % 100 == 0 or index + 1 == stop or time.monotonic() > deadline:
                (out / "sums").write_text(json.dumps(sums))
            if time.monotonic() > deadline:
                break
        os.close(place)


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


if __name__ == "__main__":
    main(sys.argv[1:])
