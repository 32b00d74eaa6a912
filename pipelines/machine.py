"""What a result depends on besides its inputs: this machine, its threads, its memory."""

from __future__ import annotations

import contextlib
import platform
import sys
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")


def describe() -> str:
    """Processor and system, in one line."""
    processor = platform.processor() or platform.machine()
    if _CPUINFO.is_file():
        named = [line.split(":", 1)[1].strip() for line in _CPUINFO.read_text().splitlines() if "model name" in line]
        processor = named[0] if named else processor
    return f"{processor}, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def threads() -> int:
    """Threads that torch computes with."""
    return torch.get_num_threads()


def restart_peak() -> None:
    """Let `peak_rss` count from now on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss() -> int:
    """Largest resident memory in bytes since `restart_peak`; since the start where the system cannot restart it."""
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
