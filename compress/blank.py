"""Building a network whose weights come from elsewhere, without drawing random ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

# The latter three hand themselves over as a whole, and with the tensor by name.
_DRAWS = {Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_}


class BlankWeights(TorchFunctionMode):
    """Inside this context a fresh layer's weights are zeros: drawing them is half of the time that a build takes."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in _DRAWS:
            return (args[0] if args else named["tensor"]).detach().zero_()
        return func(*args, **named)
