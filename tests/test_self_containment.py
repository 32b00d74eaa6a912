"""Tensors in other files are found wherever ONNX lets them lie, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from prunecore_runtime.self_containment import _DATA_LOCATION, _EXTERNAL_DATA, _WAYS, MOST_NODES, names_other_files

INSIDE = numpy_helper.from_array(np.arange(300, dtype=np.float32), "tensor")


def outside() -> TensorProto:
    tensor = TensorProto(name="tensor", data_type=TensorProto.FLOAT, dims=[300], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def constant(tensor: TensorProto) -> NodeProto:
    return helper.make_node("Constant", [], ["y"], value=tensor)


def branching(tensor: TensorProto) -> NodeProto:
    branch = helper.make_graph([constant(tensor)], "branch", [], [])
    return helper.make_node("If", ["which"], ["y"], then_branch=branch, else_branch=branch)


def model(
    *nodes: NodeProto, tensors: tuple[TensorProto, ...] = (), sparse: tuple[SparseTensorProto, ...] = ()
) -> onnx.ModelProto:
    graph = GraphProto(node=nodes, initializer=tensors, sparse_initializer=sparse)
    return onnx.ModelProto(ir_version=9, graph=graph, doc_string="location")


def everywhere(tensor: TensorProto) -> dict[str, onnx.ModelProto]:
    function = helper.make_function("ours", "f", [], ["y"], [constant(tensor)], [helper.make_opsetid("", 18)])
    with_function = model()
    with_function.functions.append(function)
    return {
        "initializer": model(tensors=(INSIDE, tensor)),
        "constant": model(constant(tensor)),
        "branch": model(constant(INSIDE), branching(tensor)),
        "sparse": model(sparse=(SparseTensorProto(values=tensor),)),
        "list": model(helper.make_node("Odd", [], ["y"], several=[INSIDE, tensor])),
        "function": with_function,
    }


@pytest.mark.parametrize("place", everywhere(INSIDE))
def test_a_tensor_outside_is_found_wherever_it_lies(place: str) -> None:
    assert not names_other_files(everywhere(INSIDE)[place].SerializeToString())
    assert names_other_files(everywhere(outside())[place].SerializeToString())


@pytest.mark.parametrize("field", ["data_location", "external_data"])
def test_either_field_is_enough(field: str) -> None:
    tensor = outside()
    tensor.ClearField(field)
    assert names_other_files(model(tensors=(tensor,)).SerializeToString())


def test_a_long_way_of_writing_a_length_hides_nothing() -> None:
    """Protocol Buffers let 5 be written as 85 00; a search for fixed bytes would pass over it."""
    tensor = b"\x6a\x80\x00" + b"\x70\x81\x00"  # external_data, empty; data_location 1
    graph = b"\x2a" + bytes([0x80 | len(tensor), 0]) + tensor
    assert names_other_files(b"\x3a" + bytes([0x80 | len(graph), 0]) + graph)


@pytest.mark.parametrize("content", [b"\x07nonsense", b"\x00", b"\x3a\x05\x2a", b"\x3b", b"\xff" * 12])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no ONNX model"):
        names_other_files(content)


def test_the_ways_are_those_of_onnx() -> None:
    """All messages of this version of ONNX that a tensor can lie in."""
    names = {
        "model": "ModelProto",
        "training": "TrainingInfoProto",
        "function": "FunctionProto",
        "graph": "GraphProto",
        "node": "NodeProto",
        "attribute": "AttributeProto",
        "sparse": "SparseTensorProto",
        "tensor": "TensorProto",
    }
    short = {long: name for name, long in names.items()}
    found = {
        name: {
            field.number: short[field.message_type.name]
            for field in getattr(onnx, long).DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.name in short
        }
        for name, long in names.items()
        if name != "tensor"
    }
    assert found == _WAYS
    numbers = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    assert (numbers["external_data"], numbers["data_location"]) == (_EXTERNAL_DATA, _DATA_LOCATION)


def test_a_graph_that_would_take_minutes_to_open_is_refused() -> None:
    node = helper.make_node("Identity", ["images"], ["nowhere"])
    assert not names_other_files(model(*[node] * MOST_NODES).SerializeToString())
    with pytest.raises(ValueError, match="its graph has more than 10,000 nodes"):
        names_other_files(model(*[node] * (MOST_NODES + 1)).SerializeToString())
