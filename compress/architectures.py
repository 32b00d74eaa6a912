"""The registry of architectures: which factory builds them and where PatchCore taps them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from compress.errors import CompressError, unknown
from compress.networks import Factory, find_factory
from compress.networks.constructor_factory import Constructor, ConstructorFactory

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """A parent network. `taps` are the stages at stride 8 and 16; mean and std are of RGB in [0, 1].

    `constructor` builds a network of the user's own, which no factory knows; its stages are its taps.
    """

    name: str
    factory_name: str
    model: str
    taps: tuple[str, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    size: int = 224
    constructor: Constructor | None = None

    @property
    def factory(self) -> Factory:
        if self.constructor is not None:
            return ConstructorFactory(self.constructor, self.taps)
        return find_factory(self.factory_name)

    @property
    def outline_device(self) -> torch.device:
        """Where to build it for its names and shapes alone: without memory, but for a user's own, whose code may
        compute with what it builds.
        """
        return torch.device("meta" if self.constructor is None else "cpu")


def _torchvision(name: str, *taps: str) -> Architecture:
    return Architecture(name, "torchvision", name, taps)


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        _torchvision("resnet18", "layer2", "layer3"),
        _torchvision("resnet34", "layer2", "layer3"),
        _torchvision("resnet50", "layer2", "layer3"),
        _torchvision("wide_resnet50_2", "layer2", "layer3"),
        _torchvision("mobilenet_v3_small", "features.3", "features.8"),
        _torchvision("mobilenet_v3_large", "features.6", "features.12"),
        Architecture(
            "efficientnet_lite0",
            "timm",
            "tf_efficientnet_lite0",
            ("blocks.2", "blocks.4"),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
    )
}
"""The networks by the name that `create_backbone` takes, each with its factory, taps and normalisation."""


@functools.lru_cache(maxsize=64)
def find_architecture(name: str) -> Architecture:
    """The registered architecture `name`, else timm's network of that name.

    Raises:
        CompressError: nobody knows `name`, it is a file's, or its features are not maps at strides 8 and 16.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.endswith((".safetensors", ".onnx")):
        raise CompressError(
            f"{name!r} is a file, and an architecture is asked for, such as resnet18: compress evaluate takes slim "
            "networks as files, and a file of plain weights goes to --weights"
        )
    import timm  # slow, and not needed for the registered ones of torchvision

    from compress.networks import timm_factory

    # "model.tag" names a set of weights of `model`; a path or a hub address is never a name.
    known = {*timm.list_models(), *timm.list_pretrained()}
    if "/" in name or ":" in name or name not in known:
        cure = "compress backbones lists them; a file of plain weights goes to --weights"
        raise unknown("architecture", name, [*ARCHITECTURES, *timm.list_models()], cure)
    config = timm.get_pretrained_cfg(name)
    if config and config.fixed_input_size and config.input_size[-1] != Architecture.size:
        raise CompressError(
            f"architecture {name!r} takes images of {config.input_size[-1]} pixels only, and ours have "
            f"{Architecture.size}: choose another"
        )
    with torch.device("meta"):  # shapes without memory: some networks have billions of parameters
        network = timm_factory.build(name)
    if not hasattr(network, "forward_intermediates") or not hasattr(network, "feature_info"):
        raise CompressError(f"architecture {name!r} gives no feature maps in timm: choose a convolutional network")
    stride_of = dict(zip(timm_factory.stages(name, network), timm_factory.reductions(network), strict=True))
    taps = tuple(_last_at(stride, stride_of) for stride in (8, 16) if stride in stride_of.values())
    if len(taps) < 2:
        raise CompressError(
            f"architecture {name!r} has feature maps at strides {sorted(set(stride_of.values()))}; "
            "strides 8 and 16 are needed: choose another"
        )
    mean, std = (config.mean, config.std) if config else (IMAGENET_MEAN, IMAGENET_STD)
    return Architecture(name, "timm", name, taps, rgb(mean), rgb(std))


def stages_of(architecture: Architecture) -> tuple[str, ...]:
    """The stages that can be tapped, shallow first."""
    return architecture.taps if architecture.constructor else _stages_of(architecture)


@functools.lru_cache(maxsize=64)
def _stages_of(architecture: Architecture) -> tuple[str, ...]:
    with architecture.outline_device:
        network = architecture.factory.build(architecture.model)
    return tuple(architecture.factory.stages(architecture.model, network))


def rgb(values: Iterable[float]) -> tuple[float, float, float]:
    """A number for each colour. Raises ValueError if there are not three, TypeError if one is no number."""
    red, green, blue = values
    return float(red), float(green), float(blue)


def _last_at(stride: int, stride_of: dict[str, int]) -> str:
    return [stage for stage, reduction in stride_of.items() if reduction == stride][-1]
