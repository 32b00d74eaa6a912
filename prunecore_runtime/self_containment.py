"""Whether an ONNX file keeps tensors in other files, or is a graph without end; told without the onnx package.

A tensor may name a file in place of its values, and ONNX Runtime then reads that file: any at all in old versions, any
below the working directory in new ones. A model from a stranger could so carry a user's file into its scores. Ours hold
all of their tensors.

And ONNX Runtime takes time with the square of the nodes to open a graph: 12 s for 10,000 that lead nowhere, 78 s for
20,000, in half a megabyte. The model is walked by its wire format (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

LARGEST = 2**31 - 1  # bytes of an ONNX file, which is one message of Protocol Buffers
MOST_NODES = 10_000  # an exported detector on an int8 ResNet-18 has some 200
_LONGEST = 10  # bytes of a varint
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of TensorProto

# For each message of onnx.proto that a tensor can lie in: the fields that lead on, and to which message.
_WAYS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


def names_other_files(model: bytes) -> bool:
    """Whether a tensor of `model`, a serialised ONNX model, lies outside of it: of the graph, of a node or of a branch.

    Raises:
        ValueError: it is no ONNX model, or has more than `MOST_NODES` nodes.
    """
    waiting = [("model", memoryview(model))]
    nodes = 0
    while waiting:
        kind, message = waiting.pop()
        nodes += kind == "node"
        if nodes > MOST_NODES:
            raise ValueError(f"its graph has more than {MOST_NODES:,} nodes")
        for number, value in _fields(message):
            if kind == "tensor":
                if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                    return True
            elif number in _WAYS[kind] and isinstance(value, memoryview):
                waiting.append((_WAYS[kind][number], value))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; numbers of fixed width, which lead nowhere, come as their bytes."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ValueError("it is no ONNX model")
        if wire == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _varint(message, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError("it is no ONNX model")
        if place + length > len(message):
            raise ValueError("it is no ONNX model")
        yield number, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number at `place`, and the place behind it."""
    value = 0
    for shift, byte in enumerate(message[place : place + _LONGEST]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, place + shift + 1
    raise ValueError("it is no ONNX model")
