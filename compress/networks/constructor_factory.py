"""Any CNN that a user's own function builds, cut behind its last tap by `torch.fx`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from compress.errors import CompressError
from compress.networks.evaluating import evaluating
from compress.networks.hooks import run_hooked

Constructor = Callable[[], nn.Module]


@dataclass(frozen=True)
class ConstructorFactory:
    """A `Factory` of one network. Its stages are its taps: only the user knows what is a stage in it."""

    constructor: Constructor
    taps: tuple[str, ...]

    def build(self, model: str) -> nn.Module:
        try:
            network = self.constructor()
        except Exception as error:  # the user's own code, or no function at all
            raise CompressError(
                f"the constructor of {model} failed ({type(error).__name__}: {error}): give a function or a class that "
                "needs no arguments, such as lambda: Net(width=48)"
            ) from error
        if not isinstance(network, nn.Module):
            raise CompressError(f"{model} gives a {type(network).__name__}: give a function that builds an nn.Module")
        # A copy: a constructor may hand out the user's own network, and ours is cut and resized.
        return copy.deepcopy(network).cpu().float().requires_grad_(True)

    def stages(self, model: str, network: nn.Module) -> list[str]:
        return list(self.taps)

    def truncate(self, model: str, network: nn.Module, taps: Sequence[str]) -> nn.Module:
        graph, outputs = _traced(model, network)
        missing = [tap for tap in taps if tap not in outputs]
        if missing:
            raise CompressError(f"{model} does not run {', '.join(missing)}, or runs it several times: tap elsewhere")
        nodes = list(graph.nodes)
        last = max(nodes.index(outputs[tap]) for tap in taps)
        for node in reversed(nodes[last + 1 :]):
            graph.erase_node(node)
        graph.output({tap: outputs[tap] for tap in taps})
        saved = network.state_dict().keys()
        trunk = fx.GraphModule(network, graph)  # holds what the graph uses, under the names it had
        for name in trunk.state_dict().keys() - saved:
            # A tensor in the code itself, such as a mean that `forward` subtracts: the constructor makes it again.
            owner, _, leaf = name.rpartition(".")
            trunk.get_submodule(owner).register_buffer(leaf, trunk.get_buffer(name), persistent=False)
        return trunk

    @staticmethod
    def run(trunk: nn.Module, x: Tensor, taps: Sequence[str]) -> list[Tensor]:
        maps: dict[str, Tensor] = trunk(x)
        return [maps[tap] for tap in taps]

    @staticmethod
    def blocks(trunk: nn.Module) -> list[nn.Module]:
        return []

    def run_whole(self, model: str, network: nn.Module, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        return run_hooked(network, x, taps)

    def classifiers(self, network: nn.Module) -> list[nn.Module]:
        """The layers past the taps whose outputs the network returns: one for each head, none if it ends in its maps.

        They are looked for backwards from what is returned, through all that is neither convolution nor linear layer.
        """
        graph, outputs = _traced("the network", network)
        nodes = list(graph.nodes)
        tapped = max(nodes.index(outputs[tap]) for tap in self.taps)
        unseen, waiting = set(nodes[tapped + 1 :]), nodes[-1:]
        found: list[nn.Module] = []
        while waiting:
            node = waiting.pop()
            layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                found.append(layer)
                continue
            sources = unseen.intersection(node.all_input_nodes)
            unseen -= sources
            waiting += sources
        return found


class _Tracer(fx.Tracer):
    """Notes the node that each module's output comes from; None for a module that runs more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node | None] = {}

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        # The images alone: further arguments of `forward` have their defaults.
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        found = super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        once = name not in self.outputs and isinstance(found, fx.Proxy)
        self.outputs[name] = found.node if once else None
        return found


def _traced(model: str, network: nn.Module) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """The operations of `network` in evaluation mode, and by module the one whose result it returns.

    Raises:
        CompressError: its code decides by the values or shapes of tensors, which `torch.fx` cannot follow.
    """
    tracer = _Tracer()
    try:
        with evaluating(network):
            graph = tracer.trace(network)
    except Exception as error:  # whatever the user's code does with what stands in for a tensor
        told = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CompressError(
            f"{model} cannot be cut behind its last tap, because torch.fx cannot follow its code ({told[:160]}): "
            "leave out of `forward` what branches on values or shapes"
        ) from error
    return graph, {name: node for name, node in tracer.outputs.items() if node is not None}
