"""The ONNX file of a backbone: what its header says, written and read back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from compress.artifact import UNREADABLE, describe, parse_spec
from compress.backbone import BackboneSpec
from compress.cost import Cost
from compress.errors import CompressError
from compress.files import require_file
from prunecore_runtime.self_containment import LARGEST, names_other_files

FORMAT = "prunecore-onnx/1"
PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Header:
    """What an ONNX backbone says about itself.

    Attributes:
        spec: of the backbone that it was made from.
        precision: `fp32` or `int8`.
        cost: parameters and MACs, the same before and after quantization.
        runtime: what it was made for, a key of `RUNTIMES`; the others can run it too.
        quantization: how it was quantized, as JSON values (see `compress.quantization`); None for `fp32`.
    """

    spec: BackboneSpec
    precision: str
    cost: Cost
    runtime: str = "onnxruntime"
    quantization: dict[str, Any] | None = None


def labelled(model: onnx.ModelProto, header: Header) -> bytes:
    """The bytes of an ONNX file of `model` with `header` in its `metadata_props`."""
    described = {
        "backbone": describe(header.spec),
        "precision": header.precision,
        "cost": dataclasses.asdict(header.cost),
        "runtime": header.runtime,
        "quantization": header.quantization,
    }
    description = json.dumps(described, sort_keys=True, separators=(",", ":"))
    bare = _bare(model)
    digest = _digest(description, bare)
    onnx.helper.set_model_props(bare, {"format": FORMAT, "prunecore": description, "sha256": digest})
    content: bytes = bare.SerializeToString()
    return content


def read_model(path: str | os.PathLike[str]) -> tuple[onnx.ModelProto, Header]:
    """The model, without its header, and the header in `path`.

    Raises:
        CompressError: the file is missing, truncated, edited, foreign, of a newer format, or not all of it in one file.
    """
    file = require_file(path, most=LARGEST)
    try:
        model = onnx.load_model_from_string(file.read_bytes())
    except (DecodeError, OSError, MemoryError) as error:
        raise CompressError(f"{file} is truncated, damaged or no ONNX file ({error})") from error
    # What is no text comes as bytes.
    properties = {str(entry.key): str(entry.value) for entry in model.metadata_props}
    found = properties.get("format", "")
    if not found.startswith("prunecore-onnx/"):
        raise CompressError(f"{file} is no ONNX backbone of prunecore: compress quantize makes them")
    if found != FORMAT:
        raise CompressError(f"{file} has format {found}, this version reads {FORMAT}: upgrade prunecore")
    description = properties.get("prunecore", "")
    bare = _bare(model)
    if properties.get("sha256") != _digest(description, bare):
        raise CompressError(f"{file} was changed after it was saved (its checksum is wrong): get it again")
    try:
        outside = names_other_files(bare.SerializeToString())
    except ValueError as error:
        raise CompressError(f"{file} is damaged or no model of ours ({error}): export the backbone again") from error
    if outside:
        raise CompressError(f"{file} keeps tensors in other files, which ours never do: export the backbone again")
    try:
        return bare, _parse(json.loads(description))
    except UNREADABLE as error:
        raise CompressError(f"{file} has an unreadable description ({type(error).__name__}: {error})") from error


def _parse(described: dict[str, Any]) -> Header:
    precision, quantization = described["precision"], described["quantization"]
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision}")
    if not (quantization is None or isinstance(quantization, dict)):
        raise ValueError("quantization is no record")
    cost = Cost(**{name: int(value) for name, value in described["cost"].items()})
    return Header(parse_spec(described["backbone"]), precision, cost, str(described["runtime"]), quantization)


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without header."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.metadata_props[:]
    return copied


def _digest(description: str, model: onnx.ModelProto) -> str:
    # No ONNX message has a map, so equal models have equal bytes.
    return hashlib.sha256(description.encode() + model.SerializeToString()).hexdigest()
