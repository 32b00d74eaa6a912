"""Files of a hub: asked for within seconds and fetched with a limit on silence, so that no network makes us hang."""

from __future__ import annotations

import hashlib
import queue
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from torch import Tensor

from compress.errors import CompressError
from compress.files import atomic_path

PATIENCE = 5.0  # seconds for the whole of name, connection and answer; a working hub takes less than one
SILENCE = 30.0  # seconds without a byte that end a download


class NoAnswerError(ConnectionError):
    """The hub is not to be reached, whatever it is asked for."""


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
        NoAnswerError: no answer within `PATIENCE` seconds.
        OSError: a refusal.
    """
    host = urlsplit(url).hostname or url
    answers: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
    # In a thread of its own: no timeout of a socket covers the look-up of a name, which may take a minute.
    threading.Thread(target=lambda: answers.put(_asked(url)), daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except queue.Empty:
        raise NoAnswerError(f"no answer from {host} within {PATIENCE:g} s") from None
    if isinstance(answer, Exception):
        reason = getattr(answer, "reason", None) or str(answer) or type(answer).__name__
        # HTTPError is an answer: this file is not to be had, others of the hub may be.
        refused = ConnectionError if isinstance(answer, HTTPError) else NoAnswerError
        raise refused(f"{host}: {reason}") from answer
    return Download(host, answer, folder, fetch)


def save(url: str, file: Path) -> None:
    """Write what is at `url` into `file`, whole or not at all.

    Raises:
        OSError: the download breaks off, nothing comes for `SILENCE` seconds, or `file` cannot be written.
        RuntimeError: the SHA-256 does not begin with the digits that the name ends in, as in net-f37072fd.pth.
    """
    named = re.search(r"-([0-9a-f]{8,})\.", file.name)
    digest = hashlib.sha256()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            with urlopen(url, timeout=SILENCE) as answer, temporary.open("wb") as written:  # noqa: S310 see `_asked`
                while block := answer.read(1 << 20):
                    digest.update(block)
                    written.write(block)
            if named and not digest.hexdigest().startswith(named[1]):
                raise RuntimeError(f"invalid hash value (expected {named[1]!r}, got {digest.hexdigest()!r})")
    except HTTPException as error:
        raise ConnectionError(f"the download broke off: {error!r}") from error
    except CompressError as error:  # what `atomic_path` makes of an OSError, the network's or its own
        raise ConnectionError(str(error.__cause__ or error)) from error


def _asked(url: str) -> int | Exception | None:
    """Its size in bytes if the host tells it, or what went wrong."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=PATIENCE) as answer:  # noqa: S310 the addresses are our own
            length = answer.headers.get("Content-Length")
            return int(length) if length else None
    except Exception as error:  # raised again by who waits
        return error
