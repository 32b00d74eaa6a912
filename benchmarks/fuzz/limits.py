"""What no input may do: end a reader in anything but a refusal of one line, hold it up, or take much memory."""

from __future__ import annotations

import re
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20  # for one input, on a machine that others use too
ADDRESS_SPACE = 6 << 30  # bytes above what the process has at its start: past it an allocation fails
LONGEST = 3000  # characters of a message

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Outcome:
    """What a reader made of an input: `complaint` is None where all is well, `grown` peak memory less memory before."""

    refused: bool
    complaint: str | None
    seconds: float
    grown: int


def guard_process() -> None:
    """Have this process killed by an input that takes longer than `SECONDS`, and bound its memory."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default kills, even inside a C library
    own = _kilobytes("VmSize") << 10
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (own + ADDRESS_SPACE, hard))


def watched(
    read: Callable[[Path], object], place: Path, refusals: tuple[type[Exception], ...], memory: int, *, alarm: bool
) -> Outcome:
    """Let `read` have what lies at `place`; `memory` is how many bytes it may take on the way.

    Args:
        alarm: kill the process after `SECONDS`, see `guard_process`.
    """
    before = _peak_from_here()
    if alarm:
        signal.alarm(SECONDS)
    start = time.perf_counter()
    refused, complaint = False, None
    try:
        read(place)
    except refusals as error:
        refused, complaint = True, _untidy(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        complaint = (
            f"{type(error).__name__}: {str(error)[:300]}\n{''.join(traceback.format_tb(error.__traceback__)[-6:])}"
        )
    finally:
        if alarm:
            signal.alarm(0)
    seconds = time.perf_counter() - start
    grown = (_kilobytes("VmHWM") << 10) - before
    if complaint is None and grown > memory:
        complaint = f"took {grown >> 20} MiB, the limit is {memory >> 20}"
    return Outcome(refused, complaint, seconds, grown)


def _untidy(error: BaseException) -> str | None:
    """What is wrong with a refusal, if anything is."""
    message = str(error)
    if not message.strip():
        return f"{type(error).__name__} without a message"
    if len(message) > LONGEST:
        return f"a message of {len(message)} characters: {message[:200]!r}"
    if odd := re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", message):
        return f"a message with the character {odd[0]!r}: {message[:300]!r}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return f"refused only as memory ran out: {message[:300]}"
        cause = cause.__cause__ or cause.__context__
    return None


def _peak_from_here() -> int:
    """Start the peak of memory anew, and return the memory in use, in bytes."""
    _RESET.write_text("5")
    return _kilobytes("VmRSS") << 10


def _kilobytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)
