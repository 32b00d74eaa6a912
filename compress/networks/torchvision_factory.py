"""ResNets and MobileNetV3 from torchvision: networks whose front is a plain chain of modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from compress.networks import reaching
from compress.networks.hooks import run_hooked
from compress.networks.reaching import Download

_RESNET_CHAIN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class Chain(nn.Module):
    """Modules that run one after another, each under the dotted name it has in its parent network."""

    def __init__(self, parent: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in names:
            *path, leaf = name.split(".")
            container: nn.Module = self
            for part in path:
                if not hasattr(container, part):
                    container.add_module(part, nn.Module())
                container = getattr(container, part)
            container.add_module(leaf, parent.get_submodule(name))

    def forward(self, x: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """Feature maps behind the modules named in `taps`."""
        maps = []
        for name in self.names:
            x = self.get_submodule(name)(x)
            if name in taps:
                maps.append(x)
        return maps


def build(model: str) -> nn.Module:
    network: nn.Module = torchvision.models.get_model(model, weights=None)
    return network


def stages(model: str, network: nn.Module) -> list[str]:
    return [name for name in _chain(network) if name not in ("conv1", "bn1", "maxpool")]


def truncate(model: str, network: nn.Module, taps: Sequence[str]) -> nn.Module:
    chain = _chain(network)
    last = max(chain.index(tap) for tap in taps)
    return Chain(network, chain[: last + 1])


def run(trunk: nn.Module, x: Tensor, taps: Sequence[str]) -> list[Tensor]:
    maps: list[Tensor] = trunk(x, taps)
    return maps


def blocks(trunk: nn.Module) -> list[nn.Module]:
    front: list[nn.Module] = []
    found: list[nn.Module] = []
    for name in trunk.names:  # type: ignore[union-attr]
        module = trunk.get_submodule(name)
        if not list(module.children()):
            front.append(module)
        else:
            # A stage of a ResNet is a plain sequence of its blocks; what derives from it is a block itself.
            found += module.children() if type(module) is nn.Sequential else [module]
    return [nn.Sequential(*front), *found] if front else found


def run_whole(model: str, network: nn.Module, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    return run_hooked(network, x, taps)


def classifiers(network: nn.Module) -> list[nn.Module]:
    return [network.fc if isinstance(network, torchvision.models.ResNet) else network.classifier[-1]]  # type: ignore[list-item,index]


def cached_weights(model: str) -> Path | None:
    file = _cache_file(model)
    return file if file.is_file() else None


def open_download(model: str) -> Download:
    file = _cache_file(model)

    def fetch() -> dict[str, Tensor]:
        reaching.save(_url(model), file)
        # The official files are pickles of plain tensors; weights_only never runs their code.
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
        return state

    return reaching.open_download(_url(model), file.parent, fetch)


def _cache_file(model: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", _url(model).rsplit("/", 1)[-1])


def _chain(network: nn.Module) -> tuple[str, ...]:
    if isinstance(network, torchvision.models.ResNet):
        return _RESNET_CHAIN
    return tuple(f"features.{name}" for name, _ in network.features.named_children())  # type: ignore[union-attr]


def _url(model: str) -> str:
    # V1 everywhere: the weights that the PatchCore literature reports with.
    url: str = torchvision.models.get_model_weights(model)["IMAGENET1K_V1"].url
    return url
