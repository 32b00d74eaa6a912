"""Weights that ship inside the package: files in float16, each with a card and a checksum in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from compress.architectures import Architecture
from compress.errors import CompressError
from compress.files import atomic_save
from compress.networks import State
from compress.weights.fetched import Fetched, sha256_of_state
from compress.weights.tensor_file import read_tensors

FOLDER = Path(__file__).parents[1] / "bundled"
FORMAT = "prunecore-weights/1"
_KEY, _SUM = "card", "sha256"


@dataclass(frozen=True)
class Card:
    """What the header of a bundled file tells.

    Attributes:
        arch: the architecture.
        teacher: what it was distilled from, in words.
        recipe: the command that repeats the training; `recipe_sha256` is of the file that has its settings.
        teacher_sha256: of the teacher's weights, as `WeightsOrigin` has it; empty for random ones.
        dataset: what the detection was measured on.
        image_auroc: mean image AUROC there, in [0, 1], by weights: `bundled` and, where they were at hand, `random` and
            `official`. `benchmarks/bundled_weights.py --record` writes it.
    """

    arch: str
    teacher: str
    recipe: str
    recipe_sha256: str
    teacher_sha256: str = ""
    dataset: str = "magnetic_tile"
    image_auroc: Mapping[str, float] = field(default_factory=dict)

    @property
    def cost(self) -> str:
        """What the weights give up against the official ones, in words."""
        if "bundled" not in self.image_auroc:
            return "what they cost in detection is not measured yet"
        own = f"image AUROC on {self.dataset} {self.image_auroc['bundled']:.3f}"
        known = "official" in self.image_auroc
        return f"{own}, with the official ones {self.image_auroc['official']:.3f}" if known else own


def bundled_archs() -> tuple[str, ...]:
    """The architectures that weights ship for."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.safetensors")))


def bundled(architecture: Architecture) -> Fetched:
    """The weights as float32; their SHA-256 is of the tensors, so that a corrected card is no other network.

    Raises:
        CompressError: none ship for this architecture, or the file is damaged.
    """
    _, state = _read(architecture.name)
    widened = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return Fetched("bundled", widened, sha256_of_state(state))


def card_of(arch: str) -> Card:
    """The card in the header.

    Raises:
        CompressError: no weights ship for `arch`, or the file is damaged.
    """
    card, _ = _read(arch)
    return card


def write_bundled(file: Path, state: State, card: Card) -> None:
    """Write `state` in float16, without batch-norm counters; `card` and a checksum into the header.

    Raises:
        CompressError: a value is not finite in float16, whose largest is 65,504; or `file` cannot be written.
    """
    tensors = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        half = tensor.detach().cpu().to(torch.float16).contiguous()
        if not half.isfinite().all():
            raise CompressError(
                f"{name} has values up to {tensor.abs().max():.3g}, and float16 ends at 65,504: train with weight decay"
            )
        tensors[name] = half
    header = {"format": FORMAT, _KEY: json.dumps(asdict(card), sort_keys=True), _SUM: sha256_of_state(tensors)}
    atomic_save(file, tensors, header)


def _read(arch: str) -> tuple[Card, State]:
    """The card and the tensors of a file, once it is sure that they are what was written for `arch`."""
    file = _file(arch)
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
        if header.get("format") != FORMAT:
            raise ValueError(f"format {header.get('format')!r} instead of {FORMAT!r}")
        card, state = Card(**json.loads(header[_KEY])), read_tensors(file)
        if card.arch != arch:
            raise ValueError(f"a card of {card.arch}")
        if header[_SUM] != sha256_of_state(state):
            raise ValueError("other tensors than were written")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, CompressError) as error:
        raise CompressError(f"{file} is not what was shipped ({error}): install prunecore again") from error
    return card, state


def _file(arch: str) -> Path:
    file = FOLDER / f"{arch}.safetensors"
    if not file.is_file():
        there = ", ".join(bundled_archs()) or "no architecture in this installation"
        raise CompressError(
            f"--weights bundled exists for {there}, not for {arch}: choose one of these, "
            "--weights imagenet (downloads) or --weights FILE"
        )
    return file
