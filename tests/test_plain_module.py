"""What `load_backbone` gives is a plain nn.Module: it goes wherever PyTorch runs, and brings few packages along."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group

import compress
from compress import CompressError
from compress.artifact import describe

IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
PARENTS = {"torchvision": "resnet18", "depthwise": "mobilenet_v3_small", "timm": "efficientnet_lite0"}
# Random MobileNets have values that vanish in float16.
WEIGHTS = {"mobilenet_v3_small": "bundled"}

# In a fresh process: load the file, run it, and print which packages came along.
LOAD = """
import sys
for name in sys.argv[2].split():
    sys.modules[name] = None  # "import name" fails, as where it is not installed
import compress, torch
slim = compress.load_backbone(sys.argv[1])
assert len(slim(torch.rand(1, 3, 64, 64))) == 2
print(*sorted({name.split(".")[0] for name, module in sys.modules.items() if module is not None}))
"""
NEVER = {
    *("torch_pruning", "onnx", "onnxscript", "onnxruntime", "fvcore", "faiss", "pandas", "matplotlib", "scipy"),
    *("jinja2", "rich", "typer", "anomaly", "reports", "pipelines"),
}


@pytest.fixture(scope="module", params=PARENTS.values(), ids=PARENTS)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slim backbone's file."""
    path = tmp_path_factory.mktemp("slim") / f"{request.param}.safetensors"
    dense = compress.create_backbone(request.param, weights=WEIGHTS.get(request.param, "none"))
    compress.save(compress.prune(dense, ratio=0.5), path)
    return path


@pytest.fixture(scope="module")
def slim(file: Path) -> compress.Backbone:
    """The backbone in it. Tests must not change it."""
    return compress.load_backbone(file)


@pytest.fixture(scope="module")
def maps(slim: compress.Backbone) -> list[Tensor]:
    with torch.no_grad():
        return slim(IMAGES)


def assert_close(found: list[Tensor], expected: list[Tensor], atol: float = 1e-5) -> None:
    assert len(found) == len(expected) == 2
    for own, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(own.float(), reference, atol=atol, rtol=1e-4)


def test_an_exported_program_computes_the_same_for_any_batch(
    slim: compress.Backbone, maps: list[Tensor], tmp_path: Path
) -> None:
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(torch.export.export(slim, (IMAGES,), dynamic_shapes=(batch,)), tmp_path / "slim.pt2")
    program = torch.export.load(tmp_path / "slim.pt2").module()
    assert_close(program(IMAGES), maps)
    assert program(IMAGES[:1].repeat(3, 1, 1, 1))[0].shape[0] == 3


def test_compiles_to_one_graph(slim: compress.Backbone, maps: list[Tensor]) -> None:
    """Without Inductor, which needs a C++ compiler; `fullgraph` forbids falling back to Python."""
    compiled = torch.compile(copy.deepcopy(slim), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert_close(compiled(IMAGES), maps)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler (g++), which Inductor needs")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_inductor_compiles_it(name: str) -> None:
    slim = compress.prune(compress.create_backbone(name, weights="bundled"), ratio=0.5)
    with torch.no_grad():
        assert_close(torch.compile(copy.deepcopy(slim), fullgraph=True)(IMAGES), slim(IMAGES), atol=1e-4)


def test_runs_in_data_parallel(slim: compress.Backbone, maps: list[Tensor]) -> None:
    with torch.no_grad():
        assert_close(nn.DataParallel(slim)(IMAGES.to(next(slim.parameters()).device)), maps)


def test_a_replica_in_a_thread_computes_the_same(slim: compress.Backbone, maps: list[Tensor]) -> None:
    """DataParallel runs copies in threads where it has several devices."""
    found: list[list[Tensor]] = []
    replica = copy.deepcopy(slim)
    thread = threading.Thread(target=lambda: found.append(replica(IMAGES)))
    thread.start()
    thread.join()
    assert_close([each.detach() for each in found[0]], maps)


def test_takes_a_step_in_distributed_data_parallel(slim: compress.Backbone, tmp_path: Path) -> None:
    plain = copy.deepcopy(slim).train()
    sum((each**2).mean() for each in plain(IMAGES)).backward()
    init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        network = nn.parallel.DistributedDataParallel(copy.deepcopy(slim).train())
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        sum((each**2).mean() for each in network(IMAGES)).backward()
        before = next(network.parameters()).detach().clone()
        optimizer.step()
    finally:
        destroy_process_group()
    for own, reference in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, reference.grad)
    assert not torch.equal(next(network.parameters()), before)


def test_gradients_reach_every_parameter(slim: compress.Backbone) -> None:
    network = copy.deepcopy(slim).requires_grad_(True).train()
    images = torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))  # in two a gate's ReLU may be silent
    sum((each**2).mean() for each in network(images)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_in_half_precision(slim: compress.Backbone, maps: list[Tensor], dtype: torch.dtype) -> None:
    half = copy.deepcopy(slim).to(dtype)
    with torch.no_grad():
        found = half(IMAGES.to(dtype))
    assert {each.dtype for each in found} == {dtype}
    for own, reference in zip(found, maps, strict=True):
        assert (own.float() - reference).norm() < 0.05 * reference.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_runs_on_a_gpu(slim: compress.Backbone, maps: list[Tensor]) -> None:
    moved = copy.deepcopy(slim).to("cuda")
    with torch.no_grad():
        assert_close([each.cpu() for each in moved(IMAGES.cuda())], maps, atol=1e-3)


def test_a_copy_shares_nothing(slim: compress.Backbone, maps: list[Tensor]) -> None:
    twin = copy.deepcopy(slim)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert_close(slim(IMAGES), maps, atol=0)
    assert twin.spec == slim.spec


def test_a_checkpoint_brings_a_fine_tuned_state_back(slim: compress.Backbone, file: Path, tmp_path: Path) -> None:
    tuned = copy.deepcopy(slim)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.mul_(1.01)
    torch.save(tuned.state_dict(), tmp_path / "checkpoint.pt")
    again = compress.load_backbone(file)
    again.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    with torch.no_grad():
        assert_close(again(IMAGES), tuned(IMAGES), atol=0)


def test_loading_imports_the_parents_package_and_no_other(file: Path) -> None:
    absent = {*NEVER} if "efficientnet" in file.name else {*NEVER, "timm", "huggingface_hub"}
    command = [sys.executable, "-c", LOAD, str(file), " ".join(absent - {"anomaly", "reports", "pipelines"})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split())
    assert {"torch", "safetensors", "torchvision"} <= imported
    assert not imported & absent


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(hasattr(compress, name) for name in compress.__all__)
    assert set(compress.__all__) <= set(dir(compress))
    assert {name for names in compress._LATE.values() for name in names} < set(compress.__all__)
    with pytest.raises(AttributeError, match="no attribute 'squeeze'"):
        compress.squeeze  # noqa: B018


def test_out_indices_choose_among_the_stages_of_the_file(slim: compress.Backbone, file: Path) -> None:
    last = len(slim.feature_info) - 1
    for out_indices, numbers in (((1,), [1]), ((-1, 0), [0, last]), (2, [last - 1, last])):
        tapped = compress.load_backbone(file, out_indices=out_indices)
        with torch.no_grad():
            assert all(map(torch.equal, tapped(IMAGES), slim.stage_maps(IMAGES, [slim.stages[n] for n in numbers])))
        assert tapped.feature_info.get_dicts() == slim.feature_info.get_dicts(idx=numbers)
        assert len(tapped.feature_info) == max(numbers) + 1


def test_a_file_tapped_earlier_can_be_saved_and_cut_again(file: Path, tmp_path: Path) -> None:
    whole, tapped = compress.load_backbone(file), compress.load_backbone(file, out_indices=(1,))
    compress.save(tapped, tmp_path / "again.safetensors")
    again = compress.load_backbone(tmp_path / "again.safetensors")
    told = [json.dumps(describe(each.spec), sort_keys=True) for each in (again, tapped)]
    assert told[0] == told[1]
    assert again.stages == whole.stages[:2]
    assert compress.cost_of(again).params_full == compress.cost_of(whole).params_full
    assert compress.cost_of(again).params_used < compress.cost_of(whole).params_used
    assert compress.prune(again, ratio=0.25).feature_info.channels()[0] < whole.feature_info.channels(1)


@pytest.mark.parametrize("out_indices", [(), (9,), (-30,), 0, 30, -1])
def test_stages_that_a_file_lacks_are_refused(out_indices: object, tmp_path: Path, resnet18: compress.Backbone) -> None:
    compress.save(resnet18, tmp_path / "r.safetensors")
    with pytest.raises(CompressError, match=r"r\.safetensors: out_indices .* 4 stages .* 0 is relu, 1 is layer1"):
        compress.load_backbone(tmp_path / "r.safetensors", out_indices=out_indices)  # type: ignore[arg-type]
