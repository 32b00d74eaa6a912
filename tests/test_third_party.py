"""CNNs that are in no registry: cut, taught, saved, loaded by the user's constructor, exported and quantized."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class Sundry(Net):
    """Layers that have other attributes than a convolution, numbers in the code, tied weights, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.full((1, 3, 1, 1), 0.5)  # neither a parameter nor a buffer
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.InstanceNorm2d(16, affine=True), nn.PReLU(16))
        self.scaled = nn.BatchNorm2d(128, affine=False)
        self.twin = nn.Conv2d(128, 128, 1)
        self.triplet = nn.Conv2d(128, 128, 1)
        self.triplet.weight = self.twin.weight
        self.up = nn.ConvTranspose2d(128, 24, 2, 2)
        self.mix = nn.Conv2d(24, 20, 1)
        self.head = nn.Sequential(nn.Linear(20, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10))
        self.paint = nn.ConvTranspose2d(20, 3, 4, 4)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.stem(x - self.offset - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        x = self.mix(self.up(self.triplet(self.twin(self.scaled(self.stages(x))))))
        return self.head(x.mean((2, 3))), {"picture": torch.sigmoid(self.paint(x))}


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


LOAD = """
import sys
for name in ("torchvision", "timm", "torch_pruning", "onnx", "fvcore"):
    sys.modules[name] = None  # "import name" fails, as where it is not installed
import compress, torch
from torch import nn
build = lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
print(*(found.shape[1] for found in compress.load_backbone(sys.argv[1], constructor=build)(torch.rand(1, 3, 64, 64))))
"""


def test_loading_needs_torch_and_safetensors_alone(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
    compress.save(compress.prune(net, ratio=0.5, example_input=IMAGES), tmp_path / "own.safetensors")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "own.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "4 4\n"), done.stderr


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


def test_layers_of_all_kinds_are_cut_saved_loaded_and_cut_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, taps = Sundry().eval(), ("stages.2", "mix")
    slim = compress.prune(net, ratio=0.25, example_input=IMAGES, taps=taps)
    assert slim.feature_info.channels() == [96, 15]
    assert slim.spec.pruning is not None
    tail = slim.spec.pruning.tail_shapes
    # Each head keeps what it returns: ten classes, and the three colours of a picture.
    assert (tail["head.3.weight"], tail["paint.weight"]) == ((10, 9), (15, 3, 4, 4))

    compress.save(slim, tmp_path / "slim.safetensors")
    again = compress.load_backbone(tmp_path / "slim.safetensors", constructor=Sundry)
    assert all(map(torch.equal, again(IMAGES), slim(IMAGES)))
    norm, activation, scaled, up = (again.trunk.get_submodule(name) for name in ("stem.1", "stem.2", "scaled", "up"))
    assert (norm.num_features, activation.num_parameters, scaled.num_features) == (12, 12, 96)
    assert (up.in_channels, up.out_channels) == (96, 24)
    smaller = compress.prune(again, ratio=0.5)
    assert smaller.feature_info.channels() == [48, 7]


def test_numbers_in_the_code_go_along_and_stay_out_of_the_file() -> None:
    net = Sundry().eval()
    dense = as_backbone(net, example_input=IMAGES, taps=("stem",))
    with torch.no_grad():
        expected = net.stem(IMAGES - 0.5 - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        torch.testing.assert_close(dense(IMAGES), [expected])
        assert dense.to(torch.float64)(IMAGES.double())[0].dtype is torch.float64
    assert dense.trunk.state_dict().keys() == {f"stem.{name}" for name in net.stem.state_dict()}


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    dense = as_backbone(Sundry(), example_input=IMAGES, taps=("triplet",))
    compress.save(dense, tmp_path / "tied.safetensors")
    again = compress.load_backbone(tmp_path / "tied.safetensors", constructor=Sundry)
    assert all(map(torch.equal, again(IMAGES), dense(IMAGES)))
    assert again.trunk.get_parameter("twin.weight") is again.trunk.get_parameter("triplet.weight")


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_weights_that_are_computed_are_refused_with_the_cure(norm: Callable[[nn.Module], nn.Module]) -> None:
    net = Net()
    norm(net.stem)
    with pytest.raises(CompressError, match=r"weights of stem are computed .*remove_parametrizations"):
        as_backbone(net, example_input=IMAGES, taps=TAPS)
    nn.utils.parametrize.remove_parametrizations(net.stem, "weight")
    assert as_backbone(net, example_input=IMAGES, taps=TAPS).spec.taps == TAPS


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_the_old_weight_norm_is_refused_with_the_cure() -> None:
    net = Net()
    nn.utils.weight_norm(net.stem)
    with pytest.raises(CompressError, match=r"cannot be copied .*remove_weight_norm"):
        as_backbone(net, example_input=IMAGES, taps=TAPS)
    nn.utils.remove_weight_norm(net.stem)
    assert as_backbone(net, example_input=IMAGES, taps=TAPS).spec.taps == TAPS


@pytest.mark.parametrize(("mean", "std"), [((0, 0, 0), (1, 0, 1)), ((0, float("nan"), 0), (1, 1, 1))])
def test_a_normalisation_that_no_file_may_tell_is_refused(net: Net, mean: Any, std: Any) -> None:
    with pytest.raises(CompressError, match=r"finite numbers are needed, those of std above 0"):
        as_backbone(net, example_input=IMAGES, taps=TAPS, mean=mean, std=std)


@pytest.mark.parametrize("constructor", ["test_third_party:Net", Net(), lambda width: Net(width)])
def test_a_constructor_that_fails_is_told_with_the_cure(
    constructor: Any, net: Net, dense: compress.Backbone, tmp_path: Path
) -> None:
    compress.save(dense, tmp_path / "net.safetensors")
    with pytest.raises(CompressError, match=r"net\.safetensors: the constructor of .*:Net failed .* no arguments"):
        compress.load_backbone(tmp_path / "net.safetensors", constructor=constructor)
    if not isinstance(constructor, str):
        with pytest.raises(CompressError, match="failed"):
            as_backbone(net, example_input=IMAGES, taps=TAPS, constructor=constructor)


def test_norms_of_groups_are_cut_to_multiples_of_their_groups() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 8, 1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1)).eval()
    with pytest.raises(CompressError, match=r"divisible by num_groups.*round to a multiple"):
        compress.prune(net, ratio=0.3, example_input=IMAGES)
    rule = compress.pruning.Rule(round_to=4)
    assert compress.prune(net, ratio=0.3, rule=rule, example_input=IMAGES, taps=("2", "3")).feature_info.channels() == [
        12,
        12,
    ]


def test_a_constructor_of_another_network_is_refused(net: Net) -> None:
    with pytest.raises(CompressError, match="builds another network"):
        as_backbone(net, example_input=IMAGES, taps=TAPS, constructor=lambda: Net(width=32))


def test_prune_asks_for_what_it_needs(net: Net, dense: compress.Backbone) -> None:
    with pytest.raises(CompressError, match="a Net is no backbone yet: give example_input"):
        compress.prune(net, ratio=0.5)
    with pytest.raises(CompressError, match="leave them out"):
        compress.prune(dense, ratio=0.5, example_input=IMAGES)
