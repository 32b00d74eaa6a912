"""From what a user types as a model to a backbone: a file of ours, or a registered name with weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from compress import Backbone, OnnxBackbone, create_backbone, load_backbone, load_onnx
from compress.architectures import find_architecture
from compress.errors import CompressError
from pipelines.places import find_weights

ONNX = ".onnx"


def open_model(
    model: str, *, weights: str = "auto", taps: Sequence[str] | None = None, seed: int = 0
) -> Backbone | OnnxBackbone:
    """The ONNX backbone in the file `model`; else as `open_torch_model`.

    Raises:
        CompressError: there is none, or weights or taps are given for a file, which has its own.
    """
    if Path(model).suffix != ONNX:
        return open_torch_model(model, weights=weights, taps=taps, seed=seed)
    if weights != "auto" or taps is not None:
        raise CompressError(f"{model} holds its own weights and taps: leave --weights and --taps out")
    return load_onnx(model)


def open_torch_model(
    model: str, *, weights: str = "auto", taps: Sequence[str] | None = None, seed: int = 0
) -> Backbone:
    """The artifact `model`, or the architecture of that name with `weights` (see `compress.create_backbone`).

    For what works on layers: pruning, training, quantization.

    Raises:
        CompressError: neither exists, weights or taps are given for an artifact, which has its own, or `model` is an
            ONNX file.
    """
    _refuse_onnx(model)
    if not names_a_file(model):
        return create_backbone(model, weights=find_weights(model, weights), taps=taps, seed=seed)
    if weights != "auto":
        raise CompressError(f"--weights {weights} contradicts {model}, which holds its own weights: leave it out")
    backbone = load_backbone(model)
    if taps is not None and tuple(taps) != backbone.spec.taps:
        raise CompressError(f"{model} is tapped at {','.join(backbone.spec.taps)}: --taps works on an architecture")
    return backbone


def precision_of(backbone: Backbone | OnnxBackbone) -> str:
    """The number format of weights and activations, as a row of results names it."""
    return backbone.precision if isinstance(backbone, OnnxBackbone) else "fp32"


def runtime_of(backbone: Backbone | OnnxBackbone) -> str:
    """What computes the maps: `pytorch`, or a key of `compress.export.RUNTIMES`."""
    return backbone.runtime if isinstance(backbone, OnnxBackbone) else "pytorch"


def parent_of(backbone: Backbone, *, weights: str = "auto") -> Backbone:
    """The dense backbone that `backbone` was cut from; itself, if it is dense.

    Args:
        weights: where the parent's weights are, as for `create_backbone`.

    Raises:
        CompressError: the weights cannot be had, or are not those that were pruned.
    """
    spec = backbone.spec
    if spec.pruning is None:
        return backbone
    if drawn := re.fullmatch(r"none \(seed (\d+)\)", spec.weights.source):  # random weights are drawn again
        return create_backbone(spec.arch, weights="none", taps=spec.taps, seed=int(drawn[1]))
    # What any installation has is taken by its name: `auto` may find other weights on another machine.
    asked = spec.weights.source if weights == "auto" and spec.weights.source in ("bundled", "offline") else weights
    parent = create_backbone(spec.arch, weights=find_weights(spec.arch, asked), taps=spec.taps)
    if spec.weights.sha256 is None or parent.spec.weights.sha256 != spec.weights.sha256:
        raise CompressError(
            f"the weights found for {spec.arch} ({parent.spec.weights.source}) are not those that were pruned "
            f"({spec.weights.source}): give these with --weights"
        )
    return parent


def check_model(model: str) -> None:
    """Refuse, before other files are read, what `open_torch_model` does not open.

    Raises:
        CompressError: there is no such artifact or architecture.
    """
    _refuse_onnx(model)
    if names_a_file(model):
        load_backbone(model)
    else:
        find_architecture(model)


def names_a_file(model: str) -> bool:
    """Whether `model` is meant as a file; it may be missing or damaged."""
    return Path(model).suffix in (".safetensors", ONNX) or Path(model).is_file()


def _refuse_onnx(model: str) -> None:
    if Path(model).suffix == ONNX:
        raise CompressError(f"{model} is for running, its layers cannot be changed: give the artifact it was made from")
