"""CNNs that are in no registry: cut, taught, saved, loaded by the user's constructor, exported and quantized."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

import compress
from compress import METHODS, CompressError, Recipe, as_backbone
from compress.pruning import Target
from compress.third_party import _strides

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
PHOTOGRAPHS = [
    torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    for seed in range(24)
]
RECIPE = Recipe(batch=4, crop=64, warm_up=2, holdout=0.0, check_every=2)


class Block(nn.Module):
    """A residual sum around a depthwise convolution, with activations as functions."""

    def __init__(self, inputs: int, outputs: int, stride: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.deep = nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.side = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        main = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.deep(main)) + self.side(x))


class Net(nn.Module):
    """Four stages, a join of two maps, a head of ten classes, and an argument that is hardly ever given."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.stages = nn.Sequential(*(Block(width << i, width << (i + 1)) for i in range(3)))
        self.twin = nn.Conv2d(width * 8, width, 1)
        self.head = nn.Linear(width * 9, 10)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = self.stages(torch.relu(self.stem(x)))
        if scale is not None:
            x = x * scale
        joined = torch.cat([x, self.twin(x)], dim=1)
        return self.head(joined.mean((2, 3)))


class Branching(Net):
    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Twice(Net):
    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = self.stages(torch.relu(self.stem(x)))
        return self.head(torch.cat([self.twin(x), self.twin(x), x], 1)[:, : 16 * 9].mean((2, 3)))


class Overwriting(Net):
    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return self.head(F.pad(self.stages(self.stem(x)).neg_(), (0, 0, 0, 0, 0, 16)).mean((2, 3)))


TAPS = ("stages.1", "stages.2")


@pytest.fixture(scope="module")
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = Net()
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
        return network.eval()


@pytest.fixture(scope="module")
def dense(net: Net) -> compress.Backbone:
    return as_backbone(net, example_input=IMAGES, taps=TAPS)


def test_maps_are_those_of_the_network(net: Net, dense: compress.Backbone) -> None:
    with torch.no_grad():
        middle = net.stages[1](net.stages[0](torch.relu(net.stem(IMAGES))))
        found = dense(IMAGES)
        torch.testing.assert_close(found, [middle, net.stages[2](middle)])
    assert (dense.feature_info.channels(), dense.feature_info.reduction()) == ([64, 128], [8, 16])
    assert dense.spec.arch == f"{__name__}:Net"
    assert not [name for name in dense.trunk.state_dict() if name.startswith(("twin", "head"))]


def test_the_last_maps_at_strides_8_and_16_are_tapped_unless_told_otherwise(net: Net) -> None:
    assert as_backbone(net, example_input=IMAGES).spec.taps == ("stages.1", "twin")
    assert as_backbone(net, example_input=IMAGES, taps=("stages.2", "stem")).spec.taps == ("stem", "stages.2")


def test_the_users_network_is_left_as_it_was(net: Net) -> None:
    own = copy.deepcopy(net).train()
    own.stem.requires_grad_(False)
    state = copy.deepcopy(own.state_dict())
    compress.prune(own, ratio=0.5, example_input=IMAGES)
    assert own.training
    assert not own.stem.weight.requires_grad
    assert not any(module._forward_hooks for module in own.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_cuts_it(method: str, net: Net, dense: compress.Backbone) -> None:
    """Half of every layer's channels go, and the cut is proved inside `prune`."""
    images = PHOTOGRAPHS if METHODS[method].reads else None
    sparse = METHODS[method].penalty is not None
    rule = compress.pruning.Rule(scope="local")
    slim = compress.prune(
        net, ratio=0.5, method=method, rule=rule, images=images, one_shot=sparse, example_input=IMAGES, taps=TAPS
    )
    assert slim.feature_info.channels() == [32, 64]
    assert [each.shape[1] for each in slim(IMAGES)] == [32, 64]
    assert compress.cost_of(slim).params_full < 0.35 * compress.cost_of(dense).params_full
    assert slim.spec.pruning is not None
    assert slim.spec.pruning.tail_shapes["head.weight"] == (10, 72)  # its ten classes stay


def test_prunes_to_a_target(dense: compress.Backbone) -> None:
    slim = compress.prune(dense, target=Target.parse("params", "30%"))
    assert compress.cost_of(slim).params_used <= 0.3 * compress.cost_of(dense).params_used


def test_a_sparse_phase_runs(net: Net, small_recipes: None) -> None:
    slim = compress.prune(
        net, ratio=0.5, method="group_norm", images=PHOTOGRAPHS, sparse_steps=2, example_input=IMAGES, device="cpu"
    )
    assert slim.spec.pruning is not None
    assert slim.spec.pruning.sparse_steps == 2


def test_recovers(dense: compress.Backbone) -> None:
    slim = compress.prune(dense, ratio=0.5)
    taught = compress.distill(slim, dense, PHOTOGRAPHS, steps=4, recipe=RECIPE, device="cpu")
    tuned = compress.finetune(taught, [(each, n % 2) for n, each in enumerate(PHOTOGRAPHS)], steps=2, recipe=RECIPE)
    fresh = compress.recalibrate(tuned, PHOTOGRAPHS)
    assert fresh.spec.pruning is not None
    assert (fresh.spec.pruning.recover, fresh.spec.pruning.recover_steps) == ("distill+finetune+bn", 6)
    assert not torch.equal(fresh(IMAGES)[0], slim(IMAGES)[0])
    with pytest.raises(CompressError, match="may load trained weights"):
        compress.reinitialise(slim)


def test_goes_to_onnx_and_to_int8(dense: compress.Backbone, tmp_path: Path) -> None:
    slim = compress.prune(dense, ratio=0.5)
    exported = compress.export_onnx(slim, tmp_path / "slim.onnx")
    with torch.no_grad():
        torch.testing.assert_close(exported(IMAGES), slim(IMAGES), atol=1e-4, rtol=1e-3)
    int8 = compress.quantize(slim, PHOTOGRAPHS)
    compress.save_onnx(int8, tmp_path / "int8.onnx")
    again = compress.load_onnx(tmp_path / "int8.onnx")
    assert (again.precision, again.spec.arch, again.feature_info.channels()) == ("int8", slim.spec.arch, [32, 64])


def test_a_file_is_loaded_by_the_constructor_and_says_no_code(dense: compress.Backbone, tmp_path: Path) -> None:
    slim = compress.prune(dense, ratio=0.5)
    file = tmp_path / "slim.safetensors"
    compress.save(slim, file)
    with safe_open(file, framework="pt") as opened:
        told = json.loads(opened.metadata()["backbone"])
    assert (told["arch"], told["factory"]) == (f"{__name__}:Net", "constructor")
    assert "constructor" not in told
    again = compress.load_backbone(file, constructor=lambda: Net(width=16))
    assert all(map(torch.equal, again(IMAGES), slim(IMAGES)))
    assert again.spec.arch == slim.spec.arch
    assert compress.prune(again, ratio=0.5).feature_info.channels() == [16, 32]
    assert compress.load_backbone(file, constructor=Net, out_indices=(0,)).spec.taps == TAPS[:1]


def test_a_file_alone_imports_nothing(tmp_path: Path, dense: compress.Backbone, resnet18: compress.Backbone) -> None:
    file, other = tmp_path / "own.safetensors", tmp_path / "resnet18.safetensors"
    compress.save(dense, file)
    compress.save(resnet18, other)
    with pytest.raises(CompressError, match=r"own\.safetensors: .*:Net is no architecture of ours, and no code"):
        compress.load_backbone(file)
    with pytest.raises(CompressError, match="needs no constructor"):
        compress.load_backbone(other, constructor=Net)
    with pytest.raises(CompressError, match="no slimming of the parent's"):
        compress.load_backbone(file, constructor=lambda: Net(width=8))
    with pytest.raises(CompressError, match="gives a int"):
        compress.load_backbone(file, constructor=lambda: 3)  # type: ignore[arg-type,return-value]


def test_another_network_is_no_teacher(net: Net, dense: compress.Backbone) -> None:
    other = as_backbone(Net(), example_input=IMAGES, taps=TAPS)
    with pytest.raises(CompressError, match="are not those that were pruned"):
        compress.distill(compress.prune(dense, ratio=0.5), other, PHOTOGRAPHS, steps=1, recipe=RECIPE)
    again = as_backbone(net, example_input=IMAGES, taps=TAPS)  # the same weights, adopted another time
    assert again.spec.weights == dense.spec.weights


def test_the_trunk_goes_where_pytorch_runs(dense: compress.Backbone) -> None:
    slim = compress.prune(dense, ratio=0.5)
    with torch.no_grad():
        expected = slim(IMAGES)
        for runs in (
            copy.deepcopy(slim),
            torch.compile(copy.deepcopy(slim), backend="aot_eager", fullgraph=True),
            torch.export.export(slim, (IMAGES,)).module(),
        ):
            torch.testing.assert_close(runs(IMAGES), expected)


def test_strides_are_told_of_maps_alone(net: Net) -> None:
    strides = _strides(net, IMAGES)
    assert {name: strides[name] for name in ("stem", "stages.0.deep", "stages", "twin")} == {
        "stem": 2,
        "stages.0.deep": 4,
        "stages": 16,
        "twin": 16,
    }
    assert "head" not in strides


@pytest.mark.parametrize(
    ("network", "images", "taps", "message"),
    [
        (Net, IMAGES[:, :1], TAPS, r"shape \(2, 1, 64, 64\).*square RGB"),
        (Net, IMAGES[..., :32], TAPS, "square RGB"),
        (Net, IMAGES[..., :16, :16], TAPS, "of 32 to 4096 pixels"),
        (Net, IMAGES, ("layer2",), "no module 'layer2' that runs once and gives a map: choose from stem"),
        (Net, IMAGES, ("head",), "no module 'head'"),
        (Net, IMAGES, (), "no taps given: choose from stem"),
        (Twice, IMAGES, ("twin",), "no module 'twin' that runs once"),
        (Branching, IMAGES, TAPS, "torch.fx cannot follow its code"),
        (Overwriting, IMAGES, ("stages.1", "stages.2"), "in place"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)), IMAGES, None, r"strides \[2\].*name taps"),
        (lambda: nn.Sequential(nn.Conv2d(5, 4, 3)), IMAGES, None, "does not run on example_input"),
    ],
)
def test_what_cannot_be_adopted_is_refused(
    network: type[nn.Module], images: Tensor, taps: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(CompressError, match=message):
        as_backbone(network(), example_input=images, taps=taps)


def test_a_constructor_of_another_network_is_refused(net: Net) -> None:
    with pytest.raises(CompressError, match="builds another network"):
        as_backbone(net, example_input=IMAGES, taps=TAPS, constructor=lambda: Net(width=32))


def test_prune_asks_for_what_it_needs(net: Net, dense: compress.Backbone) -> None:
    with pytest.raises(CompressError, match="a Net is no backbone yet: give example_input"):
        compress.prune(net, ratio=0.5)
    with pytest.raises(CompressError, match="leave them out"):
        compress.prune(dense, ratio=0.5, example_input=IMAGES)
