"""Batch norms made part of the convolutions in front of them: the same function in fewer passes over the maps."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Container, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_TOLERANCE = 1e-4  # of a map's largest value: products of two roundings instead of one


@torch.no_grad()
def fold_batch_norms(network: nn.Module, run: Callable[[], Sequence[Tensor]], *, keep: Container[str] = ()) -> None:
    """Fold, in place, each batch norm in evaluation mode that alone reads a convolution (Jacob 2018, arXiv
    1712.05877, section 3.2).

    Who reads what is seen while `run`, a pass of `network`, goes on. What a network's code does with a convolution's
    output outside of modules is not seen: if the maps that `run` returns are no longer the same, all stays as it was.

    Args:
        keep: names of modules that stay, since somebody listens at them.
    """
    before = run()
    pairs = _pairs(network, run, keep)
    modules = dict(network.named_modules())
    for convolution, norm in pairs:
        _replace(network, convolution, fuse_conv_bn_eval(modules[convolution], modules[norm]))
        _replace(network, norm, nn.Identity())
    if not all(_same(own, other) for own, other in zip(run(), before, strict=True)):
        for name in (name for pair in pairs for name in pair):
            _replace(network, name, modules[name])


def _pairs(network: nn.Module, run: Callable[[], object], keep: Container[str]) -> list[tuple[str, str]]:
    """Names of convolution and norm, where the norm alone reads what the convolution makes, and each runs once."""
    made: list[tuple[str, object]] = []  # with the tensors themselves, so that no other gets the same place in memory
    read: list[tuple[str, object]] = []
    with contextlib.ExitStack() as hooks:
        for name, module in network.named_modules():
            seen = module.register_forward_pre_hook(lambda _, given, name=name: read.extend((name, x) for x in given))
            hooks.callback(seen.remove)
            if type(module) is nn.Conv2d:
                seen = module.register_forward_hook(lambda _, given, made_now, name=name: made.append((name, made_now)))
                hooks.callback(seen.remove)
        run()
    modules = dict(network.named_modules())
    makes, reads = Counter(name for name, _ in made), Counter(name for name, _ in read)
    found = []
    for convolution, output in made:
        readers = [name for name, given in read if given is output]
        norm = readers[0] if readers else ""
        alone = len(readers) == 1 and makes[convolution] == 1 and reads[norm] == 1
        if alone and _is_plain_norm(modules[norm]) and convolution not in keep and norm not in keep:
            found.append((convolution, norm))
    return found


def _is_plain_norm(module: nn.Module) -> bool:
    """A batch norm and nothing else, such as an activation, that uses its running statistics."""
    return type(module) is nn.BatchNorm2d and not module.training and module.running_mean is not None


def _same(map_now: Tensor, map_before: Tensor) -> bool:
    return bool((map_now - map_before).abs().max() <= _TOLERANCE * map_before.abs().max())


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
