"""Any timm network with `forward_intermediates`: timm's own way to run up to a feature map and no further."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from compress.networks import reaching
from compress.networks.reaching import Download


def build(model: str) -> nn.Module:
    network: nn.Module = timm.create_model(model, pretrained=False)
    return network


def stages(model: str, network: nn.Module) -> list[str]:
    return [info["module"] for info in _feature_info(network)]


def reductions(network: nn.Module) -> list[int]:
    """Stride of each stage, in input pixels."""
    return [info["reduction"] for info in _feature_info(network)]


def truncate(model: str, network: nn.Module, taps: Sequence[str]) -> nn.Module:
    names = stages(model, network)
    indices = [names.index(tap) for tap in taps]
    network.prune_intermediate_layers(indices, prune_norm=True, prune_head=True)  # type: ignore[operator]
    network.stage_names = names  # type: ignore[assignment]  # timm forgets the names of the layers it drops
    return network


def run(trunk: nn.Module, x: Tensor, taps: Sequence[str]) -> list[Tensor]:
    names: list[str] = trunk.stage_names  # type: ignore[assignment]
    indices = [names.index(tap) for tap in taps]
    maps: list[Tensor] = trunk.forward_intermediates(  # type: ignore[operator]
        x, indices=indices, norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
    )
    return maps


def blocks(trunk: nn.Module) -> list[nn.Module]:
    return []


def run_whole(model: str, network: nn.Module, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    names = stages(model, network)
    last, maps = network.forward_intermediates(  # type: ignore[operator]
        x, indices=[names.index(tap) for tap in taps], norm=False, output_fmt="NCHW"
    )
    return network.forward_head(last), maps  # type: ignore[operator]


def classifiers(network: nn.Module) -> list[nn.Module]:
    return [network.get_classifier()]  # type: ignore[operator]


def cached_weights(model: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository = _hub_id(model)
    file = try_to_load_from_cache(repository, "model.safetensors") if repository else None
    return Path(file) if isinstance(file, str) else None


def open_download(model: str) -> Download:
    from huggingface_hub import constants, errors, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import logging

    repository = _hub_id(model)
    if repository is None:
        raise FileNotFoundError(f"timm names no weights for {model}")
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")

    def fetch() -> dict[str, Tensor]:
        # Its retries print a line each; the one error that is raised in the end says it all.
        before = logging.get_verbosity()
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        try:
            file = Path(hf_hub_download(repository, "model.safetensors"))
            return load_file(file)
        except SafetensorError as error:
            for damaged in (file.resolve(), file):  # in the cache a link to a blob: neither is of use
                damaged.unlink(missing_ok=True)
            raise RuntimeError(f"what came is damaged: {error}") from error
        except errors.HTTPError as error:  # type: ignore[attr-defined]  # of the library below it: no OSError
            raise ConnectionError(str(error) or type(error).__name__) from error
        finally:
            logging.set_verbosity(before)

    url = hf_hub_url(repository, "model.safetensors")
    return reaching.open_download(url, Path(constants.HF_HUB_CACHE), fetch)


def _feature_info(network: nn.Module) -> list[dict[str, Any]]:
    info: Any = network.feature_info
    described: list[dict[str, Any]] = info if isinstance(info, list) else info.info
    return described


def _hub_id(model: str) -> str | None:
    config = timm.get_pretrained_cfg(model)
    return config.hf_hub_id if config else None
