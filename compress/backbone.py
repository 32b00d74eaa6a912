"""The backbone: an image batch in, a list of feature maps out, and nothing run past the last tap."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from compress.architectures import Architecture, find_architecture, stages_of
from compress.blank import BlankWeights
from compress.errors import CompressError, some_of
from compress.feature_info import FeatureInfo, reduction
from compress.networks import State
from compress.networks.constructor_factory import Constructor
from compress.networks.evaluating import evaluating
from compress.resize import Shapes, resize, shapes_of
from compress.weights import WeightsOrigin, fetch_weights, fit_to

_MEASURED = 512  # pixels at most of the image that channels and strides are read off: larger ones have the same


@dataclass(frozen=True)
class Pruning:
    """How a backbone was slimmed.

    Attributes:
        ratio: share of the channels that was asked for, in [0, 1), several cuts taken together. A rule's limits and
            scope stage let other shares go: `kept` tells.
        recover: what was done after the last cut: `none`, or of `reinit`, `bn`, `distill` and `finetune` what was
            done, in that order, joined by `+`.
        kept: per pruned layer, the indices, in the dense parent, of the output channels that stayed.
        stage_channels: the same per stage whose feature map lost channels.
        tail_shapes: shapes of the classification network's tensors past the last tap: the detector never
            runs those layers and the file does not hold them, but their size is counted.
        sparse_steps: steps of sparse training before the cuts; 0 for a method that wants it and was run
            in one shot, None for a method without such a phase.
        recover_steps: steps of training after the first cut, those between cuts among them; of fresh weights, which
            `reinit` stands for, only those that followed it, since it throws away what was trained before.
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
    """Everything about a backbone but its tensors. `pruning` is None for a dense one.

    `arch` is the name of an architecture, or `module:function` of what built a user's own network: a text that nothing
    is imported by. Such a network is built anew by `constructor`, which no file holds.
    """

    arch: str
    taps: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    weights: WeightsOrigin
    pruning: Pruning | None = None
    constructor: Constructor | None = field(default=None, compare=False, repr=False)

    @property
    def is_registered(self) -> bool:
        """Whether `arch` is the name of an architecture."""
        return ":" not in self.arch

    @property
    def architecture(self) -> Architecture:
        """The dense parent.

        Raises:
            CompressError: there is no such architecture, or it is a user's own and its constructor was not given.
        """
        if self.is_registered:
            return find_architecture(self.arch)
        if self.constructor is None:
            raise CompressError(
                f"{self.arch} is no architecture of ours, and no code is imported because a file names it: pass the "
                "function that builds it, as in load_backbone(FILE, constructor=FUNCTION)"
            )
        return Architecture(
            self.arch, "constructor", self.arch, self.taps, self.mean, self.std, self.size, self.constructor
        )


class Backbone(nn.Module):
    """A network cut behind its last tap.

    Calling it with a float batch (N, 3, H, W), normalised with `mean` and `std`, gives a list of maps
    (N, C_i, H_i, W_i), one per tap, shallow first. `trunk` holds the parameters under the parent's names.
    """

    def __init__(self, spec: BackboneSpec, trunk: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = trunk
        self._run = spec.architecture.factory.run
        self.feature_info = self._measure()

    def forward(self, x: Tensor) -> list[Tensor]:
        return self._run(self.trunk, x, self.spec.taps)

    @property
    def stages(self) -> tuple[str, ...]:
        """All stages up to the last tap, shallow first."""
        stages = stages_of(self.spec.architecture)
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
        side, stages = min(self.spec.size, _MEASURED), self.stages
        with evaluating(self):
            maps = self.stage_maps(torch.zeros(1, 3, side, side), stages)
        reductions = [reduction(side, feature_map.shape[-1]) for feature_map in maps]
        out_indices = [stages.index(tap) for tap in self.spec.taps]
        return FeatureInfo(stages, [feature_map.shape[1] for feature_map in maps], reductions, out_indices)


@torch.inference_mode(False)  # a network can be trained, whatever the caller's mode
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


@torch.inference_mode(False)
def dense_parent(spec: BackboneSpec, *, seed: int = 0) -> Backbone:
    """The dense network that `spec` was cut from, with fresh random weights: a user's own with those that its
    constructor gives it.
    """
    taps, trunk = _trunk(spec.architecture, spec.taps, seed)
    origin = WeightsOrigin(f"none (seed {seed})", None)
    return Backbone(replace(spec, taps=taps, weights=origin, pruning=None), trunk).eval()


@torch.inference_mode(False)
def assemble(spec: BackboneSpec, state: State) -> Backbone:
    """A backbone of the given spec and tensors: the parent's trunk, resized to the tensors, loaded strictly.

    Raises:
        CompressError: the tensors are not a slimming of the parent.
    """
    architecture = spec.architecture
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    with architecture.outline_device:  # a small file must not make us allocate a huge parent before it proves to fit
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


def in_float32(backbone: Backbone) -> Backbone:
    """`backbone` itself, or a copy in float32 if its weights are of another type, as after `.half()`.

    Who scores, cuts, counts or exports runs images in float32 through it.
    """
    tensors = (*backbone.parameters(), *backbone.buffers())
    fits = all(tensor.dtype == torch.float32 for tensor in tensors if tensor.is_floating_point())
    return backbone if fits else copy.deepcopy(backbone).float()


def _require_names(arch: str, parent: nn.Module, shapes: Shapes) -> None:
    names = parent.state_dict().keys()
    odd = {"are missing": sorted(names - shapes.keys()), "are not its own": sorted(shapes.keys() - names)}
    told = [f"{len(listed)} {what} ({some_of(listed, 3)})" for what, listed in odd.items() if listed]
    if told:
        raise CompressError(
            f"the tensors do not make a {arch}: {', '.join(told)}; they belong to another network, or to one that ends "
            "at another stage"
        )


def tapped_at(backbone: Backbone, out_indices: int | Sequence[int]) -> Backbone:
    """A new backbone that gives the maps of other stages of `backbone`, and ends at the last of them.

    Args:
        out_indices: as in timm, numbers of stages in `backbone.feature_info`, negative ones from the end; or one
            number n for the last n. Maps come shallow first, whatever the order given.

    Raises:
        CompressError: there is no such stage.
    """
    stages = backbone.stages
    numbers = range(-out_indices, 0) if isinstance(out_indices, int) else out_indices
    if not numbers or not all(-len(stages) <= number < len(stages) for number in numbers):
        raise CompressError(
            f"out_indices {out_indices} are not among the {len(stages)} stages of this {backbone.spec.arch}: "
            + ", ".join(f"{number} is {stage}" for number, stage in enumerate(stages))
        )
    chosen = {number % len(stages) for number in numbers}
    spec = replace(backbone.spec, taps=tuple(stages[number] for number in sorted(chosen)))
    inside = _trunk_names(spec)
    state = backbone.trunk.state_dict()
    if spec.pruning is not None:
        past = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in inside}
        pruning = replace(
            spec.pruning,
            kept={layer: kept for layer, kept in spec.pruning.kept.items() if f"{layer}.weight" in inside},
            stage_channels={
                stage: kept for stage, kept in spec.pruning.stage_channels.items() if stage in stages[: max(chosen) + 1]
            },
            tail_shapes={**spec.pruning.tail_shapes, **past},
        )
        spec = replace(spec, pruning=pruning)
    return assemble(spec, {name: state[name] for name in inside})


def names_past_taps(spec: BackboneSpec) -> set[str]:
    """Names of the tensors that the parent of `spec` has and its backbone, which ends at the last tap, has not."""
    with spec.architecture.outline_device:
        names = _build(spec.architecture, seed=0).state_dict().keys()
    return set(names).difference(_trunk_names(spec))


def _trunk_names(spec: BackboneSpec) -> list[str]:
    """Names of the tensors that the backbone of `spec` has."""
    with spec.architecture.outline_device:
        return list(_trunk(spec.architecture, spec.taps)[1].state_dict())


def whole_network(backbone: Backbone) -> nn.Module:
    """The classification network that `backbone` is the front of, in evaluation mode, as a new module.

    Layers up to the last tap hold the backbone's weights. The rest, which no detector runs and no
    file holds, have their slimmed shapes and random values.
    """
    spec = backbone.spec
    network = _build(spec.architecture, seed=0)
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


def dense_widths(spec: BackboneSpec) -> dict[str, int]:
    """Output channels of each convolution and linear layer of the dense parent."""
    network = _build(spec.architecture, seed=0)
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
