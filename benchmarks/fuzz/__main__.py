"""Puts damaged inputs before every reader of files: the table of docs/reliability.md.

    python -m benchmarks.fuzz --count 20000 [--only artifact,onnx] [--seed 0] [--start 0] [--seconds 250] -o fuzz/

An input follows from seed, reader and number alone. A reader may accept it or refuse it in one line; anything else is
a failure: another exception, a message of several lines or with control characters, a crash, more than 20 seconds, or
more memory than the reader may take. Each reader works in a process of its own, which is begun again behind an input
that ended it. Failing inputs are copied to the folder, and `failures.jsonl` there tells what became of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import struct
import time
from pathlib import Path
from typing import Any

from benchmarks.fuzz.worker import READERS, Stretch, run


def fuzz(stretch: Stretch, out: Path) -> dict[str, Any]:
    """Run the stretch; the sums over its inputs, and how many failed."""
    totals: dict[str, Any] = {"inputs": 0, "refused": 0, "seconds": 0.0, "slowest": 0.0, "grown": 0, "failures": 0}
    deadline = time.monotonic() + stretch.seconds
    at = stretch.start
    while at < stretch.stop and time.monotonic() < deadline:
        for file in ("place", "sums", "failures"):
            (out / file).unlink(missing_ok=True)
        left = stretch._replace(start=at, seconds=deadline - time.monotonic())
        process = multiprocessing.get_context("fork").Process(target=run, args=(left, out))
        process.start()
        process.join()
        if not (out / "place").exists():
            raise SystemExit(f"the process for {stretch.name} did not begin")
        (reached,) = struct.unpack("q", (out / "place").read_bytes())
        found = [json.loads(line) for line in (out / "failures").read_text().splitlines()]
        sums = json.loads((out / "sums").read_text()) if (out / "sums").exists() else {}
        if process.exitcode:
            found.append({"index": reached, "complaint": f"ended the process: {process.exitcode}", "kept": ""})
            reached += 1
        _add(totals, sums, inputs=reached - at, failures=len(found))
        with (out / "failures.jsonl").open("a") as log:
            for failure in found:
                log.write(json.dumps({"reader": stretch.name, "seed": stretch.seed, **failure}) + "\n")
        at = reached
        if not process.exitcode:
            break
    return totals


def _add(totals: dict[str, Any], sums: dict[str, Any], *, inputs: int, failures: int) -> None:
    totals["inputs"] += inputs
    totals["failures"] += failures
    for name in ("refused", "seconds"):
        totals[name] += sums.get(name, 0)
    for name in ("slowest", "grown"):
        totals[name] = max(totals[name], sums.get(name, 0))


def main() -> None:
    """Parse, run, print a row for each reader."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20_000, help="inputs for each reader")
    parser.add_argument("--only", default=",".join(READERS), help="readers, comma-separated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--seconds", type=float, default=1e9, help="at most, for each reader")
    parser.add_argument("-o", "--output", type=Path, default=Path("fuzz"), help="folder for failing inputs")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    print("reader        seed  from     inputs   refused  failures  ms each  slowest s  MiB", flush=True)
    for name in given.only.split(","):
        stretch = Stretch(name, given.seed, given.start, given.start + given.count, given.seconds)
        sums = fuzz(stretch, given.output)
        each = 1000 * sums["seconds"] / max(sums["inputs"], 1)
        counts = f"{sums['inputs']:7}  {sums['refused']:7}  {sums['failures']:8}"
        costs = f"{each:7.2f}  {sums['slowest']:9.2f}  {sums['grown'] >> 20:4}"
        print(f"{name:12}  {given.seed:4}  {given.start:7}  {counts}  {costs}", flush=True)
        with (given.output / "counts.jsonl").open("a") as log:
            log.write(json.dumps({"reader": name, "seed": given.seed, "start": given.start, **sums}) + "\n")


if __name__ == "__main__":
    main()
