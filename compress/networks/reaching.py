"""What a hub is ready to send: asked for within seconds, so that a machine without a network does not hang."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from torch import Tensor

PATIENCE = 5.0  # seconds for the whole of name, connection and answer; a working hub takes less than one


@dataclass(frozen=True)
class Download:
    """A file of weights that its hub has and that is not here yet.

    Attributes:
        host: who sends it.
        bytes: its size; None if the host does not tell.
        folder: where it will be kept.
        fetch: gets it and reads it. Raises OSError if it breaks off, RuntimeError if something else comes.
    """

    host: str
    bytes: int | None
    folder: Path
    fetch: Callable[[], dict[str, Tensor]]


def open_download(url: str, folder: Path, fetch: Callable[[], dict[str, Tensor]]) -> Download:
    """The file at `url`, as its host describes it.

    Raises:
        OSError: no answer within `PATIENCE` seconds, or a refusal.
    """
    host = urlsplit(url).hostname or url
    answers: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
    # In a thread of its own: no timeout of a socket covers the look-up of a name, which may take a minute.
    threading.Thread(target=lambda: answers.put(_asked(url)), daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer from {host} within {PATIENCE:g} s") from None
    if isinstance(answer, Exception):
        reason = getattr(answer, "reason", None) or str(answer) or type(answer).__name__
        raise ConnectionError(f"{host}: {reason}") from answer
    return Download(host, answer, folder, fetch)


def _asked(url: str) -> int | Exception | None:
    """Its size in bytes if the host tells it, or what went wrong."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=PATIENCE) as answer:  # noqa: S310 the addresses are our own
            length = answer.headers.get("Content-Length")
            return int(length) if length else None
    except Exception as error:  # raised again by who waits
        return error
