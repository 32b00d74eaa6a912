"""In which order runs are begun, and that one whose worker died is begun again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from pipelines.console import note
from pipelines.engines.interface import BUSY, LOST, Ended, Engine

RETRIES = 2


def schedule(engine: Engine, runs: Mapping[str, Collection[str]], *, retries: int = RETRIES) -> Iterator[Ended]:
    """Have all `runs` done and yield each as it ends; lost means that its worker died `retries` + 1 times.

    Args:
        runs: under the name of each run the files that it makes and others may make too, such as its backbone. Two
            that make the same one are begun at the same time only where nothing else is left to do: there the second
            would wait for the first one's lock.
    """
    waiting, busy = list(runs), list[str]()
    running, made, put_off = set[str](), set[str](), set[str]()
    lost: Counter[str] = Counter()
    while waiting or busy or running:
        while (waiting or busy) and len(running) < engine.slots:
            # What another sweep is at work on comes last, when there is nothing to do but to wait for it.
            name = _next(waiting, runs, running, made) if waiting else busy.pop(0)
            engine.submit(name, wait=name in put_off)
            running.add(name)
        for ended in engine.wait():
            running.discard(ended.name)
            if ended.state == BUSY:
                busy.append(ended.name)
                put_off.add(ended.name)
            elif ended.state == LOST and lost[ended.name] < retries:
                lost[ended.name] += 1
                note(f"{ended.name}: {ended.text}; begun again")
                waiting.append(ended.name)
            else:
                made.update(runs[ended.name])
                yield ended


def _next(waiting: list[str], runs: Mapping[str, Collection[str]], running: Collection[str], made: set[str]) -> str:
    """Take the first run that makes nothing which one that is running makes; else the first."""
    making = {file for name in running for file in runs[name]} - made
    chosen = next((name for name in waiting if making.isdisjoint(runs[name])), waiting[0])
    waiting.remove(chosen)
    return chosen
