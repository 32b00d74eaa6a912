"""Which weights `auto` takes, and what it says about it. The only network here is this machine's own."""

from __future__ import annotations

import hashlib
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

import compress
from compress import CompressError
from compress.networks import reaching, timm_factory, torchvision_factory
from compress.weights import official, sources
from pipelines.cli import app
from pipelines.models import open_torch_model, parent_of
from pipelines.places import find_weights

ARCH = "mobilenet_v3_small"
State = dict[str, Tensor]
Serve = Callable[[Callable[..., BaseHTTPRequestHandler]], str]


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty caches, a network that is down, and a process that has not asked or told anything yet."""
    monkeypatch.delenv("PRUNECORE_DATA", raising=False)
    monkeypatch.delenv("PRUNECORE_OFFLINE", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(timm_factory, "cached_weights", lambda model: None)
    monkeypatch.setattr(official, "_unreached", {})
    monkeypatch.setattr(official, "_refused", {})
    sources._say_once.cache_clear()

    def down(*arguments: object, **options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(reaching, "urlopen", down)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a server on this machine, and the network with it; gives its address."""
    servers = []

    def start(handler: Callable[..., BaseHTTPRequestHandler]) -> str:
        monkeypatch.setattr(reaching, "urlopen", urllib.request.urlopen)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def state() -> State:
    """What stands for the official weights of ARCH."""
    return torchvision_factory.build(ARCH).state_dict()


class Files(SimpleHTTPRequestHandler):
    """The files of a folder, without a log on stderr."""

    def log_message(self, *arguments: object) -> None:
        pass


class Silent(Files):
    """A server that takes the question and never answers."""

    def do_HEAD(self) -> None:
        time.sleep(3)


class Stuck(Files):
    """A server that tells a size, sends a little of it and stops."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"a little")
        self.wfile.flush()
        time.sleep(3)


def publish(state: State, folder: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, *, digits: str = "") -> Path:
    """`state` on a server, under a name that ends, as torchvision's do, in the first digits of its SHA-256."""
    torch.save(state, folder / "file")
    digits = digits or hashlib.sha256((folder / "file").read_bytes()).hexdigest()[:8]
    published = (folder / "file").rename(folder / f"net-{digits}.pth")
    address = serve(partial(Files, directory=str(folder)))
    monkeypatch.setattr(torchvision_factory, "_url", lambda model: f"{address}/{published.name}")
    return published


def test_auto_takes_the_cache_first_and_says_nothing(
    state: State, hub: Path, bundled_stand_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(state, hub / Path(torchvision_factory._url(ARCH)).name)
    for weights in ("auto", "local", "imagenet"):
        backbone = compress.create_backbone(ARCH, weights=weights)
        assert backbone.spec.weights.source == "imagenet"
        assert torch.equal(backbone.trunk.get_parameter("features.0.0.weight"), state["features.0.0.weight"])
    assert not caplog.messages


def test_auto_downloads_what_a_hub_has_and_tells_so_before(
    state: State,
    hub: Path,
    tmp_path_factory: pytest.TempPathFactory,
    serve: Serve,
    bundled_stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    published = publish(state, tmp_path_factory.mktemp("hub"), serve, monkeypatch)
    saving, loading = reaching.save, torch.load
    told: list[str] = []

    def save(url: str, file: Path) -> None:
        told.extend(caplog.messages)
        saving(url, file)

    def load(file: Path, **options: object) -> object:
        assert options["weights_only"] is True
        return loading(file, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(reaching, "save", save)
    monkeypatch.setattr(torch, "load", load)
    backbone = compress.create_backbone(ARCH)
    assert backbone.spec.weights.source == "imagenet"
    assert torch.equal(backbone.trunk.get_parameter("features.0.0.weight"), state["features.0.0.weight"])
    size = published.stat().st_size / 1e6
    assert told == [
        f"downloading the ImageNet weights of {ARCH}: {size:.1f} MB from 127.0.0.1 to {hub}; "
        "--weights bundled or none does without"
    ]
    assert (hub / published.name).is_file()
    assert compress.create_backbone(ARCH).spec.weights == backbone.spec.weights
    assert caplog.messages == told  # the second time they were in the cache


def test_without_a_network_auto_takes_the_bundled_weights_with_one_line(
    bundled_stand_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(2):
        assert compress.create_backbone(ARCH, seed=seed).spec.weights.source == "bundled"
    assert caplog.messages == [
        f"weights of {ARCH}: bundled (the official ones cannot be downloaded: download.pytorch.org: Name or service "
        "not known); image AUROC on magnetic_tile 0.912, with the official ones 0.950"
    ]


def test_a_hub_that_fails_is_asked_once_in_a_process_and_again_by_name(
    bundled_stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def down(request: urllib.request.Request, timeout: float) -> None:
        asked.append(request.full_url)
        raise OSError("down")

    monkeypatch.setattr(reaching, "urlopen", down)
    for _ in range(3):
        compress.create_backbone(ARCH)
    assert len(asked) == 1
    with pytest.raises(CompressError, match="no pretrained weights for resnet34 here"):  # of the same hub
        compress.create_backbone("resnet34")
    assert len(asked) == 1
    with pytest.raises(CompressError, match="cannot download"):
        compress.create_backbone(ARCH, weights="imagenet")
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("server", "limit", "notes"),
    [
        pytest.param(Silent, "PATIENCE", [r"cannot be downloaded: .*127\.0\.0\.1"], id="does not answer"),
        pytest.param(Stuck, "SILENCE", ["^downloading", "cannot be downloaded: .*timed out"], id="stops in the middle"),
    ],
)
def test_a_server_that_keeps_us_waiting_is_not_waited_for(
    server: type[Files],
    limit: str,
    notes: list[str],
    serve: Serve,
    bundled_stand_in: Path,
    hub: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = serve(server)
    monkeypatch.setattr(torchvision_factory, "_url", lambda model: f"{address}/net-00000000.pth")
    monkeypatch.setattr(reaching, limit, 0.2)
    began = time.monotonic()
    assert compress.create_backbone(ARCH).spec.weights.source == "bundled"
    assert time.monotonic() - began < 2
    assert len(caplog.messages) == len(notes)
    assert all(map(re.search, notes, caplog.messages)), caplog.messages
    assert not list(hub.iterdir())


def test_a_download_with_another_checksum_is_not_used(
    state: State,
    tmp_path_factory: pytest.TempPathFactory,
    serve: Serve,
    bundled_stand_in: Path,
    hub: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(state, tmp_path_factory.mktemp("hub"), serve, monkeypatch, digits="00000000")
    assert compress.create_backbone(ARCH).spec.weights.source == "bundled"
    assert "invalid hash value" in caplog.messages[-1]
    assert not list(hub.iterdir())


def test_what_a_hub_does_not_have_says_nothing_about_its_other_files(
    state: State,
    tmp_path_factory: pytest.TempPathFactory,
    serve: Serve,
    bundled_stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(state, tmp_path_factory.mktemp("hub"), serve, monkeypatch)
    there = torchvision_factory._url(ARCH)
    asked: list[str] = []

    def url(model: str) -> str:
        asked.append(model)
        return there if model == ARCH else there.replace("net", "other")

    monkeypatch.setattr(torchvision_factory, "_url", url)
    for _ in range(2):
        with pytest.raises(CompressError, match=r"resnet34 here .*File not found"):
            compress.create_backbone("resnet34")
    monkeypatch.setattr(torchvision_factory, "cached_weights", lambda model: None)
    before = len(asked)
    with pytest.raises(CompressError, match=r"resnet34 here .*File not found"):
        compress.create_backbone("resnet34")
    assert len(asked) == before  # what is not there is not asked for again
    assert compress.create_backbone(ARCH).spec.weights.source == "imagenet"


def test_a_hub_that_has_no_such_file_is_told(
    tmp_path: Path, serve: Serve, bundled_stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = serve(partial(Files, directory=str(tmp_path)))
    monkeypatch.setattr(torchvision_factory, "_url", lambda model: f"{address}/none.pth")
    with pytest.raises(CompressError, match=r"cannot download.*127\.0\.0\.1: .*--weights bundled"):
        compress.create_backbone(ARCH, weights="imagenet")


def test_local_never_asks_the_network(bundled_stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "urlopen", lambda *arguments, **options: pytest.fail("asked"))
    monkeypatch.setenv("PRUNECORE_OFFLINE", "1")
    assert compress.create_backbone(ARCH, weights="local").spec.weights.source == "bundled"
    assert open_torch_model(ARCH).spec.weights.source == "bundled"
    for off in ("", "0"):
        monkeypatch.setenv("PRUNECORE_OFFLINE", off)
        assert find_weights(ARCH, "auto") == "auto"


def test_an_installed_package_comes_before_a_download() -> None:
    assert compress.create_backbone("efficientnet_lite0").spec.weights.source == "offline"


def test_nothing_here_and_nothing_there_names_the_ways_that_are_open(bundled_stand_in: Path) -> None:
    with pytest.raises(CompressError, match=rf"resnet34 here .*--arch {ARCH} --weights bundled.*--weights offline"):
        compress.create_backbone("resnet34")


def test_timms_weights_come_from_its_cache_or_its_hub(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = compress.create_backbone("regnety_002", weights="none", seed=4).trunk.state_dict()
    save_file(state, tmp_path / "model.safetensors")
    address = serve(partial(Files, directory=str(tmp_path)))
    asked = []

    def fetch(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda repository, file: f"{address}/{file}")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    downloaded = compress.create_backbone("regnety_002")
    assert asked == [("timm/regnety_002.pycls_in1k", "model.safetensors")]
    assert "downloading the ImageNet weights of regnety_002" in caplog.text
    monkeypatch.setattr(timm_factory, "cached_weights", lambda model: tmp_path / "model.safetensors")
    cached = compress.create_backbone("regnety_002")
    for backbone in (downloaded, cached):
        assert backbone.spec.weights.source == "imagenet"
        assert torch.equal(backbone.trunk.get_parameter("stem.conv.weight"), state["stem.conv.weight"])


def test_a_download_from_timms_hub_that_breaks_off_is_a_refusal_in_one_line(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").touch()
    address = serve(partial(Files, directory=str(tmp_path)))

    def break_off(repository: str, file: str) -> str:
        raise huggingface_hub.errors.HTTPError("the connection broke")  # type: ignore[attr-defined]

    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda repository, file: f"{address}/{file}")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", break_off)
    with pytest.raises(CompressError, match="cannot be downloaded: the connection broke"):
        compress.create_backbone("regnety_002")


def test_a_damaged_download_from_timms_hub_is_a_refusal_and_is_not_kept(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blob").write_bytes(b"half a file")
    (tmp_path / "model.safetensors").symlink_to("blob")
    address = serve(partial(Files, directory=str(tmp_path)))
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda repository, file: f"{address}/{file}")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, file: str(tmp_path / file))
    before = huggingface_hub.utils.logging.get_verbosity()
    with pytest.raises(CompressError, match="cannot be downloaded: what came is damaged"):
        compress.create_backbone("regnety_002")
    assert huggingface_hub.utils.logging.get_verbosity() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoints"]


def test_the_hubs_own_switch_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "urlopen", lambda *arguments, **options: pytest.fail("asked"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CompressError, match="HF_HUB_OFFLINE is set"):
        compress.create_backbone("regnety_002")


def test_a_damaged_cache_is_named_with_the_cure(hub: Path) -> None:
    (hub / Path(torchvision_factory._url(ARCH)).name).write_bytes(b"half a download")
    with pytest.raises(CompressError, match=r"mobilenet_v3_small-.*\.pth .*get it again"):
        compress.create_backbone(ARCH)


def test_the_command_line_tells_in_one_line_and_the_artifact_records(bundled_stand_in: Path, tmp_path: Path) -> None:
    file = tmp_path / "slim.safetensors"
    result = CliRunner().invoke(app, ["prune", "--arch", ARCH, "--ratio", "0.5", "-o", str(file)])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if "bundled" in line]
    assert len([line for line in lines if line.startswith(f"weights of {ARCH}: bundled (the official ones")]) == 1
    recorded = compress.load_backbone(file).spec.weights
    assert recorded == compress.create_backbone(ARCH, weights="bundled").spec.weights
    assert len(recorded.sha256 or "") == 64


def test_the_parent_of_bundled_weights_is_found_where_others_would_be_taken(
    state: State, hub: Path, bundled_stand_in: Path
) -> None:
    slim = compress.prune(compress.create_backbone(ARCH, weights="bundled"), ratio=0.5)
    torch.save(state, hub / Path(torchvision_factory._url(ARCH)).name)
    assert compress.create_backbone(ARCH).spec.weights.source == "imagenet"
    assert parent_of(slim).spec.weights == slim.spec.weights
