"""Tensors out of a file that anybody may have made: no code in it is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from compress.errors import CompressError
from compress.networks import State

SUFFIXES = (".safetensors", ".pth", ".pt")


def read_tensors(file: Path) -> State:
    """The tensors in a `.safetensors` file or a PyTorch checkpoint, by name.

    Raises:
        CompressError: it is damaged, or holds more than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CompressError(f"weights file {file} is no safetensors file or is damaged: {error}") from error
    except pickle.UnpicklingError as error:
        raise CompressError(
            f"weights file {file} is damaged, or holds more than tensors and would run code: "
            "get it again, or save its state_dict() as .safetensors"
        ) from error
    except Exception as error:  # the reader of pickles, which runs no code, raises ten kinds on damaged files
        raise CompressError(
            f"weights file {file} cannot be read: it is damaged or no PyTorch file; get it again"
        ) from error
    # Training scripts wrap the tensors: {"state_dict": {...}, "epoch": ...}
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise CompressError(f"weights file {file} holds a {type(loaded).__name__}, not a state dict")
    return {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}
