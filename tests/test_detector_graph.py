"""The detector as one ONNX graph: each stage against Pillow, torch, FAISS and scipy, and the whole against Python's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from anomaly import AnomalyError, PatchCore
from anomaly.export import BankPrecision, detector_graph
from anomaly.export.embedding import add_embedding
from anomaly.export.graph import OPSET, Graph
from anomaly.export.preprocessing import add_preprocessing
from anomaly.export.scoring import add_scoring
from anomaly.export.search import BLOCK, add_search
from anomaly.images import normalise
from anomaly.memory_bank import MemoryBank
from anomaly.patch_embedding import embed_patches
from anomaly.scoring import anomaly_maps, image_scores
from prunecore_runtime.images import cropped, resized

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Sides = Sequence[str | int]


def run(graph: Graph, inputs: dict[str, NDArray[np.generic]], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
    """What ONNX Runtime computes for a stage alone; every side of every input is open."""
    taken = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), [f"{name}{side}" for side in range(value.ndim)]
        )
        for name, value in inputs.items()
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "stage", taken, given, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(list(outputs), inputs)
    return found


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def preprocessed(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    graph = Graph("preprocess")
    output = add_preprocessing(graph, "images", mean, std)
    return run(graph, {"images": pixels[None]}, [output])[0]


@pytest.mark.parametrize(
    "size", [(256, 256), (224, 224), (100, 130), (257, 255), (300, 700), (700, 300), (37, 900), (1, 1)]
)
def test_the_resize_is_pillows(size: tuple[int, int]) -> None:
    pixels = picture(*size)
    wanted = np.asarray(cropped(resized(Image.fromarray(pixels)))).transpose(2, 0, 1).astype(int)
    found = np.rint(preprocessed(pixels, (0, 0, 0), (1, 1, 1))[0] * 255).astype(int)
    difference = np.abs(found - wanted)
    assert difference.max() <= 1
    # Fixed-point weights round otherwise here and there; an axis taken first that should be second would show in 25 %.
    assert (difference > 0).mean() < 0.01
    if size == (256, 256):
        assert difference.max() == 0


def test_the_normalisation_is_torchs() -> None:
    pixels = picture(256, 256)
    wanted = normalise(torch.from_numpy(pixels[16:240, 16:240]).permute(2, 0, 1)[None], MEAN, STD)
    assert np.abs(preprocessed(pixels, MEAN, STD) - wanted.numpy()).max() < 1e-5


@pytest.mark.parametrize(
    "shapes",
    [((4, 28, 28), (6, 14, 14)), ((4, 28, 28),), ((3, 27, 25), (5, 14, 13), (2, 7, 7)), ((2, 9, 9), (3, 9, 9))],
)
def test_the_embedding_is_torchs(shapes: tuple[tuple[int, int, int], ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, *shape, generator=generator) for shape in shapes]
    graph = Graph("embedding")
    names = [f"map{index}" for index in range(len(maps))]
    output = add_embedding(graph, names, shapes)
    (found,) = run(graph, {name: each.numpy() for name, each in zip(names, maps, strict=True)}, [output])
    wanted = embed_patches(maps).flatten(1, 2).transpose(1, 2)
    assert np.abs(found - wanted.numpy()).max() < 1e-5


def searched(
    patches: NDArray[np.float32], bank: NDArray[np.float32], precision: BankPrecision = BankPrecision.FLOAT32
) -> NDArray[np.float32]:
    graph = Graph("search")
    output = add_search(graph, "patches", bank, precision)
    return run(graph, {"patches": patches}, [output])[0]


@pytest.mark.parametrize("count", [1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 100])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float16", 1e-2), ("int8", 0.05)])
def test_the_search_is_brute_force(count: int, precision: str, tolerance: float) -> None:
    rng = np.random.default_rng(count)
    bank = rng.standard_normal((count, 24)).astype(np.float32) + 5
    patches = rng.standard_normal((2, 24, 30)).astype(np.float32) + 5
    queries = torch.from_numpy(patches.transpose(0, 2, 1).reshape(-1, 24).copy())
    wanted = torch.cdist(queries.double(), torch.from_numpy(bank).double()).amin(dim=1).view(2, 30).numpy()
    found = searched(patches, bank, BankPrecision(precision))
    assert found.shape == (2, 30)
    assert np.abs(found - wanted).max() < tolerance


def test_the_search_is_that_of_the_memory_bank() -> None:
    rng = np.random.default_rng(0)
    bank, patches = (rng.standard_normal(shape).astype(np.float32) for shape in ((60, 24), (1, 24, 50)))
    wanted = MemoryBank(torch.from_numpy(bank)).nearest(torch.from_numpy(patches[0].T.copy()))
    assert np.abs(searched(patches, bank)[0] - wanted.numpy()).max() < 1e-4


def test_int8_by_hand() -> None:
    """Vectors on the grid of the codes are held exactly, so their distances are exact."""
    bank = np.array([[-1, 1], [1, -1]], dtype=np.float32)  # mean and middle 0, codes -127.5 and 127.5
    step = 2 / 255
    held = np.array([-128, 127]) * step
    patches = np.array([[[0.3], [-0.2]]], dtype=np.float32)
    assert searched(patches, bank, BankPrecision.INT8)[0, 0] == pytest.approx(np.hypot(0.3 - held[1], -0.2 - held[0]))


def test_int8_distances_err_by_no_more_than_the_rounding() -> None:
    rng = np.random.default_rng(1)
    bank = rng.uniform(-1, 1, (300, 32)).astype(np.float32)
    patches = rng.uniform(-1, 1, (1, 32, 200)).astype(np.float32)
    exact, coarse = searched(patches, bank), searched(patches, bank, BankPrecision.INT8)
    step = np.ptp(bank - bank.mean(axis=0)) / 255
    rounding = np.sqrt(32) * step / 2
    assert np.abs(coarse - exact).max() > 0
    assert (exact - coarse).max() <= rounding  # never nearer than the nearest, but for the rounding
    assert (coarse - exact).max() <= 5 * rounding  # the choice errs by no more than its own codes, twice as coarse


def test_far_outside_the_bank_int8_still_says_how_far() -> None:
    bank = np.random.default_rng(2).uniform(-1, 1, (50, 8)).astype(np.float32)
    far = np.full((1, 8, 1), 30, dtype=np.float32)
    assert searched(far, bank, BankPrecision.INT8)[0, 0] == pytest.approx(searched(far, bank)[0, 0], rel=0.02)


def test_scores_and_maps_are_scipys() -> None:
    distances = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0))
    graph = Graph("scoring")
    add_scoring(graph, "distances", 28, 28, size=224, threshold=0.5)
    outputs = ["score", "normalised", "map"]
    score, normalised, maps = run(graph, {"distances": distances.flatten(1).numpy()}, outputs)
    assert np.array_equal(score, image_scores(distances).numpy())
    assert np.allclose(normalised, score / 0.5)
    assert np.abs(maps - anomaly_maps(distances, 224).numpy()).max() < 1e-5


class Strided(nn.Module):
    """The smallest trained-looking backbone: two maps, at strides 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.shallow, self.deep = nn.Conv2d(3, 5, 8, stride=8), nn.Conv2d(5, 7, 2, stride=2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        shallow = F.relu(self.shallow(x))
        return [shallow, F.relu(self.deep(shallow))]

    def graph(self, *, opset: int = OPSET, side: int = 224) -> onnx.ModelProto:
        """The same, made by hand."""
        weights = {name: value.detach().numpy() for name, value in self.state_dict().items()}
        nodes = [
            helper.make_node("Conv", ["x", "shallow.weight", "shallow.bias"], ["a"], "conv", strides=[8, 8]),
            helper.make_node("Relu", ["a"], ["layer2"], "relu"),
            helper.make_node("Conv", ["layer2", "deep.weight", "deep.bias"], ["b"], "conv2", strides=[2, 2]),
            helper.make_node("Relu", ["b"], ["layer3"], "relu2"),
        ]
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes,
            "backbone",
            [value("x", TensorProto.FLOAT, ["N", 3, side, side])],
            [
                value("layer2", TensorProto.FLOAT, ["N", 5, side // 8, side // 8]),
                value("layer3", TensorProto.FLOAT, ["N", 7, side // 16, side // 16]),
            ],
            [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def smooth(count: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = [Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(count)]
    return np.stack([np.asarray(each.resize((256, 256), Image.Resampling.BICUBIC)) for each in coarse])


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("float16", 5e-3), ("int8", 5e-2)])
def test_the_whole_is_pythons_detector(precision: str, tolerance: float) -> None:
    backbone = Strided()
    detector = PatchCore(backbone, mean=MEAN, std=STD)

    def crops(images: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(images[:, 16:240, 16:240]).permute(0, 3, 1, 2).contiguous()

    patches = detector.embed(detector.extract(crops(smooth(4, 0)))).flatten(0, 2)
    detector.use_bank(MemoryBank(patches[::5]))
    model = detector_graph(
        backbone.graph(),
        mean=MEAN,
        std=STD,
        bank=detector.bank.vectors.numpy(),
        threshold=0.25,
        precision=BankPrecision(precision),
    )
    images = smooth(5, 1)
    wanted = detector.predict(crops(images))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    score, normalised, maps = session.run(["score", "normalised", "map"], {"images": images})
    assert np.abs(score - wanted.scores.numpy()).max() < tolerance * np.ptp(wanted.scores.numpy())
    assert np.abs(maps - wanted.maps.numpy()).max() < 5 * tolerance * np.ptp(wanted.maps.numpy())
    assert np.allclose(normalised, score / 0.25)
    (alone,) = session.run(["score"], {"images": images[2:3]})
    assert np.allclose(alone, score[2], rtol=1e-5)  # an image's score does not hang on the others of its batch


def test_the_backbones_nodes_may_come_in_any_order() -> None:
    backbone = Strided().graph()
    turned = list(reversed(backbone.graph.node))
    del backbone.graph.node[:]
    backbone.graph.node.extend(turned)
    bank = np.ones((4, 12), np.float32)
    model = detector_graph(backbone, mean=MEAN, std=STD, bank=bank, threshold=1.0)
    assert [node.name for node in model.graph.node if node.op_type == "Relu"] == ["features/relu", "features/relu2"]
    backbone.graph.node[0].input[0] = "nothing"
    with pytest.raises(AnomalyError, match="takes what no other gives"):
        detector_graph(backbone, mean=MEAN, std=STD, bank=bank, threshold=1.0)


def test_every_node_is_named_after_its_stage() -> None:
    bank = np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32)
    model = detector_graph(Strided().graph(), mean=MEAN, std=STD, bank=bank, threshold=1.0)
    stages = list(dict.fromkeys(node.name.split("/")[0] for node in model.graph.node))
    assert stages == ["preprocess", "features", "embedding", "search", "scoring"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bank": np.zeros((4, 11), np.float32)}, r"a bank \(4, 11\) does not fit"),
        ({"bank": np.zeros((0, 12), np.float32)}, "does not fit"),
        ({"bank": np.broadcast_to(np.float32(1), (50_000_000, 12))}, r"makes a file of 2\.4 GB in float32"),
        ({"threshold": 0.0}, "threshold 0.0 is not above 0"),
        ({"threshold": float("nan")}, "threshold nan is not above 0"),
        ({"backbone": Strided().graph(opset=17)}, "has opset 17, a detector needs 18"),
        ({"backbone": Strided().graph(side=320)}, r"takes \[\(0, 3, 320, 320\)\]"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {
        "backbone": Strided().graph(),
        "mean": MEAN,
        "std": STD,
        "bank": np.ones((4, 12), np.float32),
        "threshold": 1.0,
    }
    with pytest.raises(AnomalyError, match=message):
        detector_graph(**{**given, **change})  # type: ignore[arg-type]
