"""The official ImageNet weights: out of the local cache, or from the hub that publishes them."""

from __future__ import annotations

import logging

from compress.architectures import Architecture
from compress.networks import State, find_factory
from compress.networks.reaching import NoAnswerError
from compress.weights.fetched import Fetched, sha256_of_state
from compress.weights.tensor_file import read_tensors

# A library does not print. Python shows warnings of a logger that nobody listens to as plain lines on stderr.
_logger = logging.getLogger("compress.weights")
# Why nothing came. Asked once in a process, unless by name: a hub that is not reached, and what a hub does not have.
_unreached: dict[str, str] = {}  # by factory
_refused: dict[str, str] = {}  # by architecture


class DownloadError(Exception):
    """Nothing came; the message is why, in a few words."""


def cached(architecture: Architecture) -> Fetched | None:
    """The weights in the cache of this machine, if they are there."""
    file = find_factory(architecture.factory_name).cached_weights(architecture.model)
    return None if file is None else _official(read_tensors(file))


def downloaded(architecture: Architecture, *, again: bool = True) -> Fetched:
    """The weights from the network, kept in the cache. What comes and where to is told before it comes.

    Args:
        again: ask for what has failed before in this process.

    Raises:
        DownloadError: the hub does not answer, or sends something else.
    """
    hub, name = architecture.factory_name, architecture.name
    known = _unreached.get(hub) or _refused.get(name)
    if known and not again:
        raise DownloadError(known)
    try:
        download = find_factory(architecture.factory_name).open_download(architecture.model)
        size = "size unknown" if download.bytes is None else f"{download.bytes / 1e6:.1f} MB"
        _logger.warning(
            f"downloading the ImageNet weights of {name}: {size} from {download.host} to "
            f"{download.folder}; --weights bundled or none does without"
        )
        return _official(download.fetch())
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash of what came is wrong
        reason = str(error).splitlines()[0][:120].strip() if str(error) else type(error).__name__
        if isinstance(error, NoAnswerError):
            _unreached[hub] = reason
        else:
            _refused[name] = reason
        raise DownloadError(reason) from error


def _official(state: State) -> Fetched:
    return Fetched("imagenet", state, sha256_of_state(state))
