"""What a backbone costs: parameters and multiply-accumulates, of the whole network and of the part that runs."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from compress.backbone import Backbone, in_float32, whole_network
from compress.errors import CompressError
from compress.networks.evaluating import evaluating


@dataclass(frozen=True)
class Cost:
    """`full` is the whole classification network, `used` the part up to the last tap. MACs are for one image."""

    params_full: int
    params_used: int
    macs_full: int
    macs_used: int


def cost_of(backbone: Backbone) -> Cost:
    """Count parameters and fvcore's MACs (multiply-accumulates, what fvcore calls flops) at spec.size pixels square."""
    backbone = in_float32(backbone)
    whole = whole_network(backbone)
    try:
        macs_full = count_macs(whole, backbone.spec.size)
    except RuntimeError as error:  # shapes past the last tap come out of the file's header
        raise CompressError(f"the layers past the last tap of this {backbone.spec.arch} do not fit together") from error
    return Cost(
        count_parameters(whole), count_parameters(backbone), macs_full, count_macs(backbone, backbone.spec.size)
    )


def count_parameters(network: nn.Module) -> int:
    """Elements of all parameters; buffers do not count."""
    return sum(math.prod(parameter.shape) for parameter in network.parameters())


def count_macs(network: nn.Module, size: int) -> int:
    """fvcore's count for one image of `size` x `size` pixels, in evaluation mode."""
    # fvcore prints a warning for every operation that it counts as free.
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with evaluating(network), torch.no_grad():
        analysis = FlopCountAnalysis(network, torch.zeros(1, 3, size, size))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return int(analysis.total())
