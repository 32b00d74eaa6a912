"""What the training loop steps a network by: AdamW, or Muon for its convolutions and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from compress.training.muon import Muon

OPTIMIZERS = ("relative_muon", "muon", "adamw")
REST = 0.3  # of relative_muon's rate, for what goes by AdamW
_STEP = "step"  # the one thing remembered that is no tensor of the parameter's shape
_REMEMBERED: dict[type[torch.optim.Optimizer], set[str]] = {
    Muon: {"momentum_buffer"},
    torch.optim.AdamW: {_STEP, "exp_avg", "exp_avg_sq"},
}


class Optimizer:
    """One optimizer of a whole network.

    `muon` (Jordan 2024): the momentum of each convolution, as a matrix (out channels, in channels x kernel), is
    replaced by the nearest orthogonal matrix, so that all directions of the weight learn alike and not only the few
    that the gradient is large in. Its steps have the size of AdamW's, so that one learning rate serves both. Depthwise
    and grouped convolutions, whose rows share no input, norms, biases and linear layers go by AdamW.

    `relative_muon`: a convolution's step is a share of its weight, the learning rate. So one rate serves weights of
    every scale. AdamW takes REST of the rate for what is left.

    Args:
        network: on its device and in its memory layout, which must not change from here on.
        name: one of OPTIMIZERS.
        weight_decay: decoupled, at least 0.
    """

    def __init__(self, network: nn.Module, name: str, *, weight_decay: float) -> None:
        convolutions = list(_dense_convolutions(network)) if name != "adamw" else []
        rest = [parameter for parameter in network.parameters() if not any(parameter is own for own in convolutions)]
        self._matrices = [(weight, nn.Parameter(_as_matrix(weight.detach()))) for weight in convolutions]
        relative = name == "relative_muon"
        self._rate_of_rest = REST if relative else 1.0
        self._parts: list[torch.optim.Optimizer] = []
        if self._matrices:
            flat = [matrix for _, matrix in self._matrices]
            self._parts.append(Muon(flat, weight_decay=weight_decay, relative=relative))
        if rest:
            self._parts.append(torch.optim.AdamW(rest, weight_decay=weight_decay, fused=True))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad()
        for weight, _ in self._matrices:
            weight.grad = None

    def step(self, rate: float) -> None:
        """One step down the gradients, at that learning rate."""
        for weight, matrix in self._matrices:
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad.to(memory_format=_layout(weight)))
        for part in self._parts:
            own = rate if isinstance(part, Muon) else rate * self._rate_of_rest
            for group in part.param_groups:
                group["lr"] = own
            part.step()

    def state(self) -> dict[str, Tensor]:
        """All that it remembers between steps."""
        return {
            f"{index}.{name}": tensor
            for index, parameter, part in self._stepped()
            for name, tensor in part.state[parameter].items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to what `state` gave.

        Raises:
            ValueError: it is not of these parameters.
        """
        for index, parameter, part in self._stepped():
            prefix = f"{index}."
            own = {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}
            shapes = {each.shape for name, each in own.items() if name != _STEP}
            if own and (own.keys() != _REMEMBERED[type(part)] or shapes != {parameter.shape}):
                raise ValueError(f"the state of the optimizer's parameter {index} does not fit it")
            for name, tensor in own.items():
                # The fused optimizer wants its moments in the memory layout of their parameter.
                like = parameter.detach() if name != _STEP else torch.zeros((), device=parameter.device)
                part.state[parameter][name] = torch.empty_like(like).copy_(tensor)

    def _stepped(self) -> Iterator[tuple[int, nn.Parameter, torch.optim.Optimizer]]:
        """Every tensor that is stepped, numbered, with the optimizer that steps it."""
        pairs = [(own, part) for part in self._parts for group in part.param_groups for own in group["params"]]
        return ((index, parameter, part) for index, (parameter, part) in enumerate(pairs))


def _dense_convolutions(network: nn.Module) -> Iterator[nn.Parameter]:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and isinstance(module.weight, nn.Parameter):
            yield module.weight


def _layout(weight: Tensor) -> torch.memory_format:
    return torch.contiguous_format if weight.is_contiguous() else torch.channels_last


def _as_matrix(weight: Tensor) -> Tensor:
    """A convolution's weight (O, I, K, K) as (O, I x K x K) over the same memory; columns in the order of memory."""
    if weight.is_contiguous():
        return weight.view(len(weight), -1)
    return weight.permute(0, 2, 3, 1).view(len(weight), -1)
