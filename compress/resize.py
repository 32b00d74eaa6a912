"""Give the layers of a dense network the shapes of a slimmed one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from compress.errors import CompressError

Shapes = Mapping[str, Sequence[int]]


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in the state dict, by name."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def resize(network: nn.Module, shapes: Shapes) -> None:
    """Replace, in place, every tensor whose entry in `shapes` differs by an empty one of that shape.

    The attributes that describe a layer (channels, groups, features) follow its tensors. Names in
    `shapes` that the network lacks, and the reverse, are left to `load_state_dict(strict=True)`.

    Raises:
        CompressError: a shape has another rank than the parent's, or is empty or larger in a dimension.
    """
    for prefix, module in network.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        changed = False
        for leaf, tensor in own:
            name = f"{prefix}.{leaf}" if prefix else leaf
            if name not in shapes or tuple(shapes[name]) == tuple(tensor.shape):
                continue
            _check(name, shapes[name], tensor.shape)
            empty = torch.zeros(tuple(shapes[name]), dtype=tensor.dtype)
            setattr(module, leaf, nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty)
            changed = True
        if changed:
            _describe(module)


def _check(name: str, shape: Sequence[int], parent: Sequence[int]) -> None:
    fits = len(shape) == len(parent) and all(0 < slim <= dense for slim, dense in zip(shape, parent, strict=True))
    if not fits:
        raise CompressError(
            f"tensor {name} has shape {list(shape)}, which is no slimming of the parent's {list(parent)}: "
            "the file belongs to another architecture"
        )


def _describe(module: nn.Module) -> None:
    """Make a layer's attributes say what its tensors hold."""
    if isinstance(module, nn.ConvTranspose2d):
        inputs, outputs_per_group = module.weight.shape[:2]
        if module.groups > 1 and module.groups == module.in_channels:
            module.groups = inputs
        module.in_channels, module.out_channels = inputs, outputs_per_group * module.groups
    elif isinstance(module, nn.Conv2d):
        outputs, inputs_per_group = module.weight.shape[:2]
        if module.groups > 1 and module.groups == module.in_channels:  # depthwise: one group per input channel
            module.groups = outputs // (module.out_channels // module.groups)
        module.in_channels = inputs_per_group * module.groups
        module.out_channels = outputs
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.InstanceNorm2d):
        held = module.running_mean if module.weight is None else module.weight  # without `affine`, statistics alone
        module.num_features = held.shape[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = module.weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]
