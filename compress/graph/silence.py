"""The proof of a cut: what is left must compute what the whole network does with the lost channels silent."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from compress.backbone import Backbone
from compress.errors import CompressError

# Share of a map's largest value: sums of fewer terms round differently, wrong channels differ by whole units.
TOLERANCE = 1e-3

Channels = Mapping[str, Iterable[int]]


@torch.no_grad()
def check_cut(dense: Backbone, slim: Backbone, *, outputs: Channels, inputs: Channels, maps: Channels) -> None:
    """Run both on one random image, the lost channels of `dense` set to zero, and compare every map.

    A graph that ties the wrong channels together can give a network that runs and is wrong; this finds it.

    Args:
        dense: before the cut.
        slim: after the cut.
        outputs: per layer of the trunk, the output channels that were cut.
        inputs: per layer, the input channels that were cut. They may not be zero with the outputs that
            feed them: some activations and shifts make something of nothing.
        maps: per stage, the channels of its map that were cut.

    Raises:
        CompressError: a map of `slim` is not what is left of the map of `dense`.
    """
    quiet = copy.deepcopy(dense).eval()
    layers = dict(quiet.trunk.named_modules())
    for name in outputs.keys() & layers.keys():
        layers[name].register_forward_hook(_SilentOutputs(outputs[name], slim.trunk.get_submodule(name)))
    for name in inputs.keys() & layers.keys():
        layers[name].register_forward_pre_hook(_SilentInputs(inputs[name]))
    for name, layer in layers.items():
        if isinstance(layer, GlobalResponseNorm):
            layer.register_forward_hook(_AmongTheAudible(slim.trunk.get_submodule(name)))
    side = dense.spec.size
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = quiet.stage_maps(image, dense.stages)
    for stage, own, reference in zip(dense.stages, slim.stage_maps(image, dense.stages), expected, strict=True):
        left = reference[:, _without(reference.shape[1], maps.get(stage, ()))]
        if own.shape != left.shape or not (own - left).abs().max() <= TOLERANCE * reference.abs().max():
            raise CompressError(
                f"{dense.spec.arch} cannot be pruned: without the cut channels stage {stage} does not compute the same "
                "function, since its layers mix channels in a way that Torch-Pruning does not follow; "
                "choose another architecture"
            )


class _SilentInputs:
    """A forward pre-hook that sets input channels to zero."""

    def __init__(self, gone: Iterable[int]) -> None:
        self.gone = torch.tensor(sorted(gone), dtype=torch.long)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].index_fill(_axis(layer, inputs[0]), self.gone, 0), *inputs[1:])


class _SilentOutputs:
    """A forward hook that sets output channels to zero.

    A norm over channels also has to leave them out of its mean and variance: the slim layer does.
    """

    def __init__(self, gone: Iterable[int], slim: nn.Module) -> None:
        self.gone, self.slim = sorted(gone), slim

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        axis = _axis(layer, output)
        if not isinstance(layer, nn.LayerNorm | nn.GroupNorm):
            return output.index_fill(axis, torch.tensor(self.gone, dtype=torch.long), 0)
        kept = torch.tensor(_without(output.shape[axis], self.gone))
        return torch.zeros_like(output).index_copy(axis, kept, self.slim(inputs[0].index_select(axis, kept)))


class _AmongTheAudible:
    """A forward hook that lets `slim` respond to the channels that are not silent.

    ConvNeXt V2 divides each channel's energy by the mean over all channels, with no layer in between that
    the graph would name.
    """

    def __init__(self, slim: nn.Module) -> None:
        self.slim = slim

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        axis = 3 if layer.channel_dim == -1 else 1
        heard = inputs[0].transpose(axis, 0).flatten(1).any(dim=1).nonzero()[:, 0]
        return torch.zeros_like(output).index_copy(axis, heard, self.slim(inputs[0].index_select(axis, heard)))


def _axis(layer: nn.Module, x: Tensor) -> int:
    """Where the channels are: last for a linear layer and a LayerNorm that does not call itself 2d, else second."""
    plain = isinstance(layer, nn.LayerNorm) and "2d" not in type(layer).__name__
    return x.ndim - 1 if plain or isinstance(layer, nn.Linear) else 1


def _without(size: int, gone: Iterable[int]) -> list[int]:
    lost = set(gone)
    return [channel for channel in range(size) if channel not in lost]
