"""A user's own CNN as a backbone: any nn.Module of RGB images, tapped at modules by their names."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.architectures import IMAGENET_MEAN, IMAGENET_STD, rgb
from compress.backbone import Backbone, BackboneSpec, assemble
from compress.errors import CompressError, some_of
from compress.feature_info import reduction
from compress.networks.constructor_factory import Constructor
from compress.networks.hooks import noting, run_hooked
from compress.resize import shapes_of
from compress.weights import WeightsOrigin
from compress.weights.fetched import sha256_of_state

SIDES = (32, 4096)  # what a file may tell
TOLERANCE = 1e-4  # of a map's largest value, between the network and what is cut out of it


@torch.inference_mode(False)
def as_backbone(
    module: nn.Module,
    *,
    example_input: Tensor,
    taps: Sequence[str] | None = None,
    constructor: Constructor | None = None,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Backbone:
    """A dense backbone of a copy of `module`, for every verb that takes one.

    `torch.fx` cuts the network behind its last tap, in evaluation mode: `forward` may not branch on values or shapes
    of tensors, and what it does in training mode alone (dropout as a function) stays away. The outputs of the cut
    network are compared with those of `module`.

    Args:
        module: a network whose `forward` takes one batch of RGB images; it is left as it was.
        example_input: such a batch (N, 3, S, S), S from 32 to 4096: networks are measured at that size.
        taps: names of the modules whose output maps (N, C, H, W) are returned; each must run once. By default the last
            ones at strides 8 and 16. They are all stages that there are: distillation compares these maps.
        constructor: a function or class that builds the dense network, whatever its weights; needed again to load a
            saved file. By default the class of `module`, whose name is what a file tells.
        mean, std: of RGB in [0, 1], which images are normalised with; std above 0.

    Raises:
        CompressError: images, normalisation or taps that will not do, weights that are computed from others, code that
            cannot be followed, or a constructor of another network.
    """
    shape = tuple(example_input.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or not SIDES[0] <= shape[2] <= SIDES[1]:
        raise CompressError(
            f"example_input has shape {shape}, and (N, 3, S, S) is needed: square RGB images of {SIDES[0]} to "
            f"{SIDES[1]} pixels"
        )
    mean, std = rgb(mean), rgb(std)
    if not all(map(math.isfinite, (*mean, *std))) or not min(std) > 0:
        raise CompressError(f"mean {mean} and std {std}: finite numbers are needed, those of std above 0")
    own = _copied(module)
    images = example_input.detach().cpu().float()
    chosen = _chosen(own, images, taps)
    builder = constructor or type(module)
    spec = BackboneSpec(
        arch=f"{builder.__module__}:{getattr(builder, '__qualname__', type(builder).__qualname__)}",
        taps=chosen,
        mean=mean,
        std=std,
        size=images.shape[-1],
        weights=WeightsOrigin("your own", sha256_of_state(own.state_dict())),
        constructor=constructor or _Copies(own),
    )
    factory = spec.architecture.factory
    trunk = factory.truncate(spec.arch, factory.build(spec.arch), chosen)
    state = own.state_dict()
    if any(name not in state or state[name].shape != shape for name, shape in shapes_of(trunk).items()):
        raise CompressError(f"the constructor {spec.arch} builds another network than was given: pass what built that")
    backbone = assemble(spec, {name: state[name] for name in trunk.state_dict()})
    _require_same(backbone, own, images)
    return backbone


def _copied(module: nn.Module) -> nn.Module:
    """A copy in float32 and evaluation mode, on the CPU."""
    computed = [name for name, layer in module.named_modules() if parametrize.is_parametrized(layer)]
    if computed:
        raise CompressError(
            f"the weights of {some_of(computed)} are computed from others, as in weight and spectral norm, and cannot "
            "be cut: fix them first by torch.nn.utils.parametrize.remove_parametrizations(LAYER, 'weight')"
        )
    try:
        return copy.deepcopy(module).cpu().float().eval()
    except RuntimeError as error:
        raise CompressError(
            f"the network cannot be copied ({error}): torch.nn.utils.remove_weight_norm(LAYER) fixes the weights of "
            "layers that compute them"
        ) from error


class _Copies:
    """The constructor of a network that is at hand: its weights are replaced, so it is never changed itself."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __call__(self) -> nn.Module:
        return self._network  # the factory copies what it is handed

    def __deepcopy__(self, memo: dict[int, object]) -> _Copies:
        return self


def _chosen(network: nn.Module, images: Tensor, taps: Sequence[str] | None) -> tuple[str, ...]:
    """The taps, in the order in which they run."""
    stride_of = _strides(network, images)
    if taps is None:
        last = {stride: name for name, stride in stride_of.items() if stride in (8, 16)}
        if len(last) < 2:
            raise CompressError(
                f"this network has maps at strides {sorted(set(stride_of.values()))} of its images of "
                f"{images.shape[-1]} pixels, and 8 and 16 are what is tapped by default: name taps"
            )
        return tuple(name for name in stride_of if name in last.values())
    for tap in taps:
        if tap not in stride_of:
            raise CompressError(f"no module {tap!r} that runs once and gives a map: choose from {some_of(stride_of)}")
    if not taps:
        raise CompressError(f"no taps given: choose from {some_of(stride_of)}")
    return tuple(name for name in stride_of if name in taps)


@torch.no_grad()
def _strides(network: nn.Module, images: Tensor) -> dict[str, int]:
    """By module that runs once and gives a map, its stride, in the order in which they end."""
    ended: list[tuple[str, object]] = []

    inside = [name for name, _ in network.named_modules() if name]
    try:
        with noting(network, inside, lambda name, output: ended.append((name, output))):
            network(images)
    except Exception as error:  # the user's own code
        raise CompressError(f"the network does not run on example_input ({type(error).__name__}: {error})") from error
    names = [name for name, _ in ended]
    return {
        name: reduction(images.shape[-1], output.shape[-1])
        for name, output in ended
        if isinstance(output, Tensor) and output.ndim == 4 and names.count(name) == 1
    }


@torch.no_grad()
def _require_same(backbone: Backbone, network: nn.Module, images: Tensor) -> None:
    _, expected = run_hooked(network, images, backbone.spec.taps)
    for tap, own, reference in zip(backbone.spec.taps, backbone(images), expected, strict=True):
        if own.shape != reference.shape or not (own - reference).abs().max() <= TOLERANCE * reference.abs().max():
            raise CompressError(
                f"cut out of its network, {tap} gives another map: a later layer writes into it in place, or "
                "`forward` does what torch.fx does not see; tap another module"
            )
