"""The backbone: an image batch in, a list of feature maps out, and nothing run past the last tap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compress.architectures import Architecture, find_architecture, stages_of
from compress.blank import BlankWeights
from compress.errors import CompressError, some_of
from compress.networks import State
from compress.resize import Shapes, resize, shapes_of
from compress.weights import WeightsOrigin, fetch_weights, fit_to

_MEASURED = 512  # pixels at most of the image that channels and strides are read off: larger ones have the same


@dataclass(frozen=True)
class Pruning:
    """How a backbone was slimmed.

    Attributes:
        recover: what was done after the last cut: `none`, or of `reinit`, `bn`, `distill` and `finetune` what was
            done, in that order, joined by `+`.
        kept: per pruned layer, the indices, in the dense parent, of the output channels that stayed.
        stage_channels: the same per stage whose feature map lost channels.
        tail_shapes: shapes of the classification network's tensors past the last tap: the detector never
            runs those layers and the file does not hold them, but their size is counted.
        sparse_steps: steps of sparse training before the cuts; 0 for a method that wants it and was run
            in one shot, None for a method without such a phase.
        recover_steps: steps of training after the first cut, those between cuts among them.
    """

    method: str
    ratio: float
    scope: str
    seed: int
    recover: str
    kept: Mapping[str, Sequence[int]]
    tail_shapes: Shapes
    stage_channels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sparse_steps: int | None = None
    recover_steps: int = 0


UNPRUNED = Pruning("none", 0.0, "none", 0, "none", kept={}, tail_shapes={})  # how a dense one was slimmed


@dataclass(frozen=True)
class BackboneSpec:
    """Everything about a backbone but its tensors. `pruning` is None for a dense one."""

    arch: str
    taps: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    weights: WeightsOrigin
    pruning: Pruning | None = None


class FeatureInfo:
    """What the maps look like, in timm's `features_only` terms."""

    def __init__(self, names: Sequence[str], channels: Sequence[int], reductions: Sequence[int]) -> None:
        self._names, self._channels, self._reductions = list(names), list(channels), list(reductions)

    def module_name(self) -> list[str]:
        """The tapped stages."""
        return list(self._names)

    def channels(self) -> list[int]:
        """Channels C_i of each map."""
        return list(self._channels)

    def reduction(self) -> list[int]:
        """Stride of each map, in input pixels."""
        return list(self._reductions)


class Backbone(nn.Module):
    """A network cut behind its last tap.

    Calling it with a float batch (N, 3, H, W), normalised with `mean` and `std`, gives a list of maps
    (N, C_i, H_i, W_i), one per tap, shallow first. `trunk` holds the parameters under the parent's names.
    """

    def __init__(self, spec: BackboneSpec, trunk: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = trunk
        self._run = find_architecture(spec.arch).factory.run
        self.feature_info = self._measure()

    def forward(self, x: Tensor) -> list[Tensor]:
        return self._run(self.trunk, x, self.spec.taps)

    @property
    def stages(self) -> tuple[str, ...]:
        """All stages up to the last tap, shallow first."""
        stages = stages_of(find_architecture(self.spec.arch))
        return stages[: stages.index(self.spec.taps[-1]) + 1]

    def stage_maps(self, x: Tensor, stages: Sequence[str]) -> list[Tensor]:
        """The maps (N, C_i, H_i, W_i) of any `stages` up to the last tap, shallow first."""
        return self._run(self.trunk, x, stages)

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of RGB in [0, 1] that inputs are normalised with."""
        return self.spec.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of RGB in [0, 1] that inputs are normalised with."""
        return self.spec.std

    @torch.no_grad()
    def _measure(self) -> FeatureInfo:
        training = self.training
        side = min(self.spec.size, _MEASURED)
        maps = self.eval()(torch.zeros(1, 3, side, side))
        self.train(training)
        reductions = [reduction(side, feature_map.shape[-1]) for feature_map in maps]
        return FeatureInfo(self.spec.taps, [feature_map.shape[1] for feature_map in maps], reductions)


def reduction(side: int, map_side: int) -> int:
    """The stride of a map from an image of `side` pixels: networks without padding give slightly smaller maps, so
    it is the nearest power of two.
    """
    return int(2 ** round(math.log2(side / map_side)))


def create_backbone(
    name: str,
    *,
    weights: str = "auto",
    taps: Sequence[str] | None = None,
    seed: int = 0,
) -> Backbone:
    """A dense backbone in evaluation mode.

    Args:
        name: a registered architecture, or any timm network with feature maps at strides 8 and 16.
        weights: `imagenet` (the official weights, out of the local cache or downloaded), `bundled` (our own, inside
            this package), `offline` (out of an installed Python package), `none` (random), or a `.safetensors` /
            `.pth` file. `local` is what this machine has: the cache, else `offline`, else `bundled`; `auto` is the
            same, and downloads before it takes `bundled`. What `auto` and `local` decide to be told, and every
            download, is a warning of the logger `compress.weights`.
        taps: the stages whose maps are returned; by default the last ones at strides 8 and 16.
        seed: of the random weights.

    Raises:
        CompressError: unknown name or tap, or weights that cannot be had or do not fit.
    """
    architecture = find_architecture(name)
    chosen, trunk = _trunk(architecture, taps, seed)
    fetched = fetch_weights(architecture, weights)
    if fetched.state is not None:
        trunk.load_state_dict(fit_to(trunk, fetched))
    spec = BackboneSpec(name, chosen, architecture.mean, architecture.std, architecture.size, fetched.origin(seed))
    return Backbone(spec, trunk).eval()


def assemble(spec: BackboneSpec, state: State) -> Backbone:
    """A backbone of the given spec and tensors: the parent's trunk, resized to the tensors, loaded strictly.

    Raises:
        CompressError: the tensors are not a slimming of the parent.
    """
    architecture = find_architecture(spec.arch)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    with torch.device("meta"):  # a small file must not make us allocate a huge parent before it proves to fit
        parent = _trunk(architecture, spec.taps)[1]
        resize(parent, shapes)
        _require_names(spec.arch, parent, shapes)
    with BlankWeights():
        _, trunk = _trunk(architecture, spec.taps)
    resize(trunk, shapes)
    try:
        trunk.load_state_dict(state)
        return Backbone(spec, trunk).eval()
    except RuntimeError as error:  # torch lists every missing and unexpected name
        raise CompressError(f"the tensors do not make a {spec.arch}: {_one_line(error)}") from error


def _require_names(arch: str, parent: nn.Module, shapes: Shapes) -> None:
    names = parent.state_dict().keys()
    missing, foreign = sorted(names - shapes.keys()), sorted(shapes.keys() - names)
    if missing or foreign:
        raise CompressError(
            f"the tensors do not make a {arch}: {len(missing)} are missing ({some_of(missing, 3)}), {len(foreign)} are "
            f"not its own ({some_of(foreign, 3)}); get the file again"
        )


def whole_network(backbone: Backbone) -> nn.Module:
    """The classification network that `backbone` is the front of, in evaluation mode, as a new module.

    Layers up to the last tap hold the backbone's weights. The rest, which no detector runs and no
    file holds, have their slimmed shapes and random values.
    """
    spec = backbone.spec
    network = _build(find_architecture(spec.arch), seed=0)
    trunk_state = backbone.trunk.state_dict()
    tail = (spec.pruning or UNPRUNED).tail_shapes
    resize(network, {**tail, **shapes_of(backbone.trunk)})
    network.load_state_dict({**network.state_dict(), **trunk_state})
    return network.eval()


def _trunk(architecture: Architecture, taps: Sequence[str] | None, seed: int = 0) -> tuple[tuple[str, ...], nn.Module]:
    """The taps in order, and the dense parent cut behind the last of them."""
    parent = _build(architecture, seed)
    chosen = _ordered(architecture, taps)
    return chosen, architecture.factory.truncate(architecture.model, parent, chosen)


def dense_widths(arch: str) -> dict[str, int]:
    """Output channels of each convolution and linear layer of a dense network."""
    network = _build(find_architecture(arch), seed=0)
    kinds = (nn.Conv2d, nn.Linear)
    return {name: layer.weight.shape[0] for name, layer in network.named_modules() if isinstance(layer, kinds)}


def _build(architecture: Architecture, seed: int) -> nn.Module:
    # Building draws random weights; the caller's generator is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture.factory.build(architecture.model)


def _ordered(architecture: Architecture, taps: Sequence[str] | None) -> tuple[str, ...]:
    """The taps, shallow first."""
    if taps is None:
        return architecture.taps
    stages = stages_of(architecture)
    for tap in taps:
        if tap not in stages:
            raise CompressError(f"{architecture.name} has no stage {tap!r} to tap: choose from {', '.join(stages)}")
    if not taps:
        raise CompressError(f"no taps given: choose from {', '.join(stages)}")
    return tuple(stage for stage in stages if stage in taps)


def _one_line(error: Exception, limit: int = 300) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[:limit] + " ..."
