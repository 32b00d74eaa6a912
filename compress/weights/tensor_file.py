"""Tensors out of a file that anybody may have made: no code in it is run."""

from __future__ import annotations

import mmap
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from compress.errors import CompressError
from compress.files import require_short_header
from compress.networks import State

SUFFIXES = (".safetensors", ".pth", ".pt")


def read_tensors(file: Path) -> State:
    """The tensors in a `.safetensors` file or a PyTorch checkpoint, by name.

    Raises:
        CompressError: it is damaged, holds more than tensors, or tensors of a kind that no network is kept in.
    """
    state = _read(file)
    for name, tensor in state.items():
        # Sparse, quantized, complex and empty ("meta") ones could not be copied into a network.
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            raise CompressError(
                f"weights file {file}: {name} is no plain tensor of numbers ({tensor.dtype}, {tensor.layout}, "
                f"{tensor.device}): save the dense state_dict()"
            )
    return state


def _read(file: Path) -> State:
    try:
        if file.suffix == ".safetensors":
            require_short_header(file)
            return load_file(file)
        _refuse_bombs(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except CompressError:
        raise
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


def _refuse_bombs(file: Path) -> None:
    """A small file must not take gigabytes, which PyTorch's reader would let it in two ways; torch.save uses neither.

    Entries of its archive may be packed, and a pickle, though it runs no code, can ask for a bytearray of any length.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
        if packed:
            raise CompressError(f"weights file {file} holds compressed parts, which PyTorch never writes: get it again")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:1] != b"\0" and content.find(b"bytearray") >= 0:  # 0 begins neither an archive nor a pickle
            raise CompressError(
                f"weights file {file} holds a bytearray, which is no tensor: save the state_dict() alone"
            )
