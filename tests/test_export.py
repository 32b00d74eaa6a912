"""The ONNX export: equal maps, named layers, a file that knows itself, and refusals that name the cure."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import compress
from anomaly.patchcore import PatchCore
from compress import CompressError
from compress.export import FORMAT, OnnxBackbone, export_onnx, load_onnx, read_model, to_graph
from compress.export.graph import Graph, layer_of
from compress.export.header import labelled
from compress.export.parity import deviation, relative_error, require_float_parity
from compress.export.views import patterned_views


@pytest.fixture(scope="module")
def slim() -> compress.Backbone:
    """A ResNet-18 to layer2, cut by half, whose batch norms are worth folding."""
    dense = compress.create_backbone("resnet18", weights="none", taps=("layer1", "layer2"))
    return compress.prune(lively(dense), ratio=0.5)


def lively(backbone: compress.Backbone) -> compress.Backbone:
    """`backbone` with norms away from one and zero, where a wrong folding would show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*backbone.trunk.named_parameters(), *backbone.trunk.named_buffers()]:
            if tensor.ndim == 1:
                middle = 1.0 if name.endswith(("weight", "running_var")) else 0.0
                tensor.copy_(middle + torch.rand(tensor.shape, generator=generator) / 2 - 0.25)
    return backbone


@pytest.fixture(scope="module")
def graph(slim: compress.Backbone) -> Graph:
    return to_graph(slim)


@pytest.fixture(scope="module")
def exported(slim: compress.Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "slim.onnx"
    export_onnx(slim, file)
    return file


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 3])
def test_maps_equal_pytorchs_for_any_batch(slim: compress.Backbone, exported: Path, count: int) -> None:
    loaded = load_onnx(exported)
    with torch.no_grad():
        expected = slim(images(count))
    for own, other in zip(loaded(images(count)), expected, strict=True):
        assert deviation(other.numpy(), own.numpy()) < 1e-5


def test_the_file_tells_what_is_in_it(slim: compress.Backbone, exported: Path) -> None:
    loaded = load_onnx(exported, threads=1)
    assert isinstance(loaded, OnnxBackbone)
    assert loaded.spec.pruning is not None
    assert (loaded.spec.arch, loaded.spec.taps, loaded.precision) == ("resnet18", ("layer1", "layer2"), "fp32")
    assert (loaded.mean, loaded.std) == (slim.mean, slim.std)
    assert loaded.spec.pruning.ratio == 0.5
    assert loaded.cost == compress.cost_of(slim)
    assert loaded.file_bytes == exported.stat().st_size
    assert loaded.feature_info.channels() == slim.feature_info.channels()
    assert loaded.feature_info.reduction() == slim.feature_info.reduction()
    assert loaded.threads == 1
    loaded.threads = 2
    assert loaded.threads == 2


def test_batch_norms_are_folded_and_nodes_bear_the_parents_names(slim: compress.Backbone, graph: Graph) -> None:
    assert "BatchNormalization" not in {node.op_type for node in graph.model.graph.node}
    layers = {name for name, layer in slim.trunk.named_modules() if isinstance(layer, nn.Conv2d)}
    assert {layer_of(node) for node in graph.model.graph.node if node.op_type == "Conv"} == layers
    names = [node.name for node in graph.model.graph.node]
    assert len(set(names)) == len(names)
    assert {"layer1.0/add", "layer1.0.relu#2", "maxpool"} <= set(names)


def test_the_export_leaves_the_backbone_as_it_was(slim: compress.Backbone, tmp_path: Path) -> None:
    before = copy.deepcopy(slim.state_dict())
    slim.train()
    try:
        to_graph(slim)
        assert slim.training
    finally:
        slim.eval()
    assert all(torch.equal(tensor, before[name]) for name, tensor in slim.state_dict().items())


def test_patchcore_takes_it_for_a_backbone(slim: compress.Backbone, exported: Path) -> None:
    loaded = load_onnx(exported)
    batch = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    own, other = (PatchCore(net, mean=net.mean, std=net.std).extract(batch) for net in (loaded, slim))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(own, other, strict=True))


@pytest.mark.parametrize("opset", [17, 24])
def test_an_opset_out_of_range_is_refused(slim: compress.Backbone, tmp_path: Path, opset: int) -> None:
    with pytest.raises(CompressError, match=f"opset {opset} is outside 18 to 23"):
        export_onnx(slim, tmp_path / "slim.onnx", opset=opset)


def test_the_newest_opset_runs(tmp_path: Path) -> None:
    backbone = compress.create_backbone("resnet18", weights="none", taps=("layer1",))
    assert export_onnx(backbone, tmp_path / "new.onnx", opset=23).precision == "fp32"


@pytest.mark.parametrize("layer", ["layer1.0.conv2", "layer2.0.downsample.0"])
def test_a_wrong_layer_is_named(slim: compress.Backbone, graph: Graph, layer: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == f"{layer}.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.1, weight.name))
    with pytest.raises(CompressError, match=rf"it starts in layer {layer}:"):
        require_float_parity(slim, Graph(model, graph.origins), patterned_views(slim.spec))


class _Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def test_an_operator_without_onnx_form_is_named_with_its_layer() -> None:
    backbone = compress.create_backbone("resnet18", weights="none", taps=("layer1",))
    backbone.trunk.layer1[0].relu = _Bessel()  # type: ignore[index,union-attr]
    with pytest.raises(CompressError, match=r"bessel_j0 of layer layer1\.0\.relu has no form in ONNX"):
        to_graph(backbone)


def test_foreign_newer_edited_and_broken_files_are_refused(exported: Path, graph: Graph, tmp_path: Path) -> None:
    file = tmp_path / "odd.onnx"

    def refused(content: bytes) -> str:
        file.write_bytes(content)
        with pytest.raises(CompressError) as caught:
            load_onnx(file)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    whole = exported.read_bytes()
    assert "no ONNX backbone of prunecore" in refused(graph.model.SerializeToString())
    assert "damaged" in refused(whole[: len(whole) // 2])
    assert "damaged" in refused(b"not a model at all")
    assert "upgrade prunecore" in refused(whole.replace(FORMAT.encode(), b"prunecore-onnx/9"))
    assert "no ONNX backbone" in refused(whole.replace(FORMAT.encode(), FORMAT.encode()[:-1] + b"\xff")), "no text"
    assert "was changed" in refused(whole.replace(b'"precision":"fp32"', b'"precision":"int8"'))
    with pytest.raises(CompressError, match="no such file"):
        load_onnx(tmp_path / "missing.onnx")


def test_a_model_with_a_tensor_in_another_file_is_refused(exported: Path, tmp_path: Path) -> None:
    model, header = read_model(exported)
    tensor = next(each for each in model.graph.initializer if len(each.dims) == 4)
    model.graph.initializer.remove(tensor)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    (tmp_path / "reader.onnx").write_bytes(labelled(model, header))
    with pytest.raises(CompressError, match="keeps tensors in other files"):
        load_onnx(tmp_path / "reader.onnx")


def test_a_model_with_another_input_or_absurd_maps_is_refused(exported: Path, tmp_path: Path) -> None:
    model, header = read_model(exported)
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = -7
    (tmp_path / "odd.onnx").write_bytes(labelled(model, header))
    with pytest.raises(CompressError, match="are not maps of the taps"):
        load_onnx(tmp_path / "odd.onnx")
    model, header = read_model(exported)
    model.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("second", onnx.TensorProto.FLOAT, [1]))
    (tmp_path / "two.onnx").write_bytes(labelled(model, header))
    with pytest.raises(CompressError, match="takes 2 inputs, and ours take one"):
        load_onnx(tmp_path / "two.onnx")


def test_reading_gives_the_model_back(exported: Path, graph: Graph) -> None:
    model, header = read_model(exported)
    assert model == graph.model
    assert header.quantization is None


def test_images_of_another_size_are_refused(exported: Path) -> None:
    with pytest.raises(CompressError, match=r"takes images \(N, 3, 224, 224\), not \(1, 3, 64, 64\)"):
        load_onnx(exported)(torch.zeros(1, 3, 64, 64))


def test_errors_of_maps_by_hand() -> None:
    reference, other = np.array([0.0, 3.0, 4.0], np.float32), np.array([0.0, 3.0, 3.5], np.float32)
    assert deviation(reference, other) == pytest.approx(0.5 / 4)
    assert relative_error(reference, other) == pytest.approx(0.5 / 5)
    assert relative_error(reference, reference) == 0


def test_a_network_in_half_precision_is_exported_in_float32(slim: compress.Backbone, tmp_path: Path) -> None:
    half = copy.deepcopy(slim).half()
    exported = export_onnx(half, tmp_path / "half.onnx")
    with torch.no_grad():
        expected = half.float()(images(1))
    for own, other in zip(exported(images(1)), expected, strict=True):
        assert deviation(other.numpy(), own.numpy()) < 1e-5
