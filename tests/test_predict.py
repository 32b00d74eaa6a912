"""The exported detector: equal to Python's, run without PyTorch, on whatever a user names as images."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import types
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import compress
from anomaly import open_dataset
from anomaly.export import BankPrecision
from anomaly.export.search import BLOCK
from anomaly.images import load_image
from anomaly.threshold import FOLDS
from compress.errors import CompressError
from pipelines import export as export_module
from pipelines.cli import app
from pipelines.detector_file import FittedDetector, save_detector
from pipelines.export import MAPS, TOLERANCE, export_detector, parity_images
from pipelines.fit import FitSettings, fit_detector
from prunecore_runtime import Detector, DetectorError
from prunecore_runtime.cli import main
from prunecore_runtime.detector import FORMAT
from prunecore_runtime.overlay import overlay
from prunecore_runtime.seal import is_whole, sealed

ROOT = Path(__file__).parent.parent
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "faiss",
    "scipy",
    "pandas",
    "matplotlib",
    "onnx",
    "typer",
    "rich",
    "safetensors",
)


@pytest.fixture(scope="module")
def fitted(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> FittedDetector:
    (grid,) = open_dataset(str(tiny_dataset), cache=tmp_path_factory.mktemp("none"), only=("printed_grid",))
    backbone = compress.create_backbone("mobilenet_v3_small", weights="none")
    return fit_detector(backbone, grid, FitSettings(bank_size=40, quantile=0.8), command="compress fit")


@pytest.fixture(scope="module")
def exported(fitted: FittedDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "grid.onnx"
    export_detector(fitted, file)
    return file


@pytest.fixture(scope="module")
def images(tiny_dataset: Path) -> Path:
    return tiny_dataset / "printed_grid" / "test"


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_scores_are_pythons(fitted: FittedDetector, exported: Path, images: Path) -> None:
    files = sorted(images.rglob("*.png"))
    wanted = fitted.patchcore().predict(torch.stack([load_image(file) for file in files]))
    found = Detector(exported).predict([str(file) for file in files])
    span = np.ptp(wanted.scores.numpy())
    assert np.abs(found.scores - wanted.scores.numpy()).max() < 1e-3 * span
    assert found.maps.shape == (len(files), 224, 224)
    threshold = fitted.description.threshold.value
    assert np.allclose(found.normalised, found.scores / threshold)
    assert np.array_equal(found.defective, found.scores > np.float32(threshold))


@pytest.mark.parametrize("precision", BankPrecision)
def test_a_file_that_differs_is_not_written(
    fitted: FittedDetector, precision: BankPrecision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = export_module.detector_graph
    monkeypatch.setattr(
        export_module, "detector_graph", lambda *a, **k: original(*a, **{**k, "bank": k["bank"] + 0.02})
    )
    with pytest.raises(CompressError, match="off by"):
        export_detector(fitted, tmp_path / "grid.onnx", precision)
    assert not list(tmp_path.iterdir())


def test_parity_spans_good_and_defective_images(fitted: FittedDetector) -> None:
    shown = parity_images(fitted)
    half = len(shown) // 2
    assert shown.shape == (2 * len(fitted.images), 256, 256, 3)
    assert np.array_equal(shown[:half], fitted.images.numpy())
    changed = (shown[half:] != shown[:half]).any(axis=(1, 2, 3))
    assert changed.all()


def test_every_kind_of_image_gives_the_same_score(exported: Path, images: Path) -> None:
    detector = Detector(exported, threads=1)
    file = next(images.rglob("*.png"))
    picture = Image.open(file).convert("RGB")
    array = np.asarray(picture)
    (score,) = detector.predict(file).scores
    for image in (str(file), picture, array, [array], array[None], [file]):
        assert detector.predict(image).scores[0] == pytest.approx(score, rel=1e-6)
    assert detector.predict([file, file, picture]).scores.shape == (3,)
    wide = np.asarray(picture.resize((400, 300)))
    assert detector.run(wide[None]).scores[0] == pytest.approx(detector.predict(wide).scores[0], rel=0.02)


def test_images_that_are_none_are_refused(exported: Path) -> None:
    detector = Detector(exported)
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(DetectorError, match=r"must be uint8 \(H, W, 3\), RGB"):
            detector.predict([wrong])
    with pytest.raises(DetectorError, match="no images to predict"):
        detector.predict([])
    with pytest.raises(DetectorError, match="0 x 5 pixels"):
        detector.predict(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 0, 5, 3), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 1), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
    ],
    ids=lambda batch: f"{batch.dtype}-{batch.shape}",
)
def test_a_batch_that_is_none_is_refused(exported: Path, batch: np.ndarray) -> None:
    with pytest.raises(DetectorError, match="a batch is"):
        Detector(exported).run(batch)  # an image of no pixels had a score otherwise


def test_the_file_tells_how_it_was_made(fitted: FittedDetector, exported: Path) -> None:
    metadata = Detector(exported).metadata
    assert metadata["format"] == FORMAT
    assert metadata["threshold"]["quantile"] == 0.8
    assert metadata["threshold"]["images"] == 6
    assert metadata["bank"] == {"vectors": 40, "dimensions": fitted.bank.shape[1], "precision": "float32"}
    assert metadata["fingerprints"] == dict(fitted.description.fingerprints)
    assert metadata["backbone"]["arch"] == "mobilenet_v3_small"
    onnx.checker.check_model(str(exported))


def test_a_smaller_bank_makes_a_smaller_file(fitted: FittedDetector, exported: Path, tmp_path: Path) -> None:
    export_detector(fitted, tmp_path / "half.onnx", BankPrecision.FLOAT16)
    saved = exported.stat().st_size - (tmp_path / "half.onnx").stat().st_size
    assert saved > 0.8 * fitted.bank.numel() * 2


def test_files_that_are_no_detector_are_refused(fitted: FittedDetector, exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    save_detector(fitted, tmp_path / "fitted.onnx")
    model = onnx.load(exported)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    newer, odd = (
        sealed(_with(model, text).SerializeToString())
        for text in (entries["prunecore"].replace(FORMAT, "prunecore-onnx-detector/7"), "{}")
    )
    huge = f'{{"format": "{FORMAT}", "threshold": {{"value": {10**400}}}}}'
    stranger = _with(model, entries["prunecore"])
    del stranger.graph.output[2:]
    reader = _with(model, entries["prunecore"])
    stolen = max(reader.graph.initializer, key=onnx.TensorProto.ByteSize)
    stolen.ClearField("raw_data")
    stolen.data_location = onnx.TensorProto.EXTERNAL
    stolen.external_data.add(key="location", value="/etc/passwd")
    bare = _with(model, "{}")
    del bare.metadata_props[:]
    bare.producer_name = "pytorch"
    cases = {
        "truncated": (whole[:-1000], "truncated or was changed"),
        "edited": (whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:], "truncated or was changed"),
        "foreign": (bare.SerializeToString(), "no detector of ours"),
        "text": (b"hello", "no detector of ours"),
        "empty": (b"", "no detector of ours"),
        "newer": (newer, "format prunecore-onnx-detector/7, this version reads"),
        "odd": (odd, "does not tell its format"),
        "huge": (sealed(_with(model, huge).SerializeToString()), "does not tell its format"),
        "deep": (sealed(_with(model, "[" * 100_000).SerializeToString()), "does not tell its format"),
        "stranger": (sealed(stranger.SerializeToString()), "gives score, normalised, not score, normalised, map"),
        "reader": (sealed(reader.SerializeToString()), "keeps tensors in other files"),
        "nonsense": (sealed(b"\x07nonsense"), "cannot be run by ONNX Runtime"),
        "fitted": ((tmp_path / "fitted.onnx").read_bytes(), "compress export"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DetectorError, match=message) as refused:
            Detector(tmp_path / name)
        assert "\n" not in str(refused.value)
    for options in ({"threads": 0}, {"threads": 10**8}, {"threshold": -1.0}, {"threshold": float("nan")}):
        with pytest.raises(DetectorError):
            Detector(exported, **options)  # type: ignore[arg-type]


def _with(model: onnx.ModelProto, text: str) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    onnx.helper.set_model_props(changed, {"prunecore": text})
    return changed


def test_the_seal_is_part_of_a_valid_model(exported: Path) -> None:
    content = exported.read_bytes()
    assert is_whole(content)
    (entry,) = (each for each in onnx.load(exported).metadata_props if each.key == "prunecore-sha256")
    assert len(entry.value) == 64


def test_predict_prints_a_line_for_each_image(
    exported: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(exported), str(images), "--batch", "3", "--save-maps", str(tmp_path / "maps")]) == 0
    output = capsys.readouterr()
    found = lines(output.out)
    files = sorted(images.rglob("*.png"))
    assert [line["image"] for line in found] == [str(file) for file in files]
    assert list(found[0]) == ["image", "score", "normalised", "defective", "ms"]
    alone = Detector(exported).predict(files[0])
    assert found[0]["score"] == pytest.approx(float(alone.scores[0]), rel=1e-3)
    assert "images per second" in output.err
    maps = sorted((tmp_path / "maps").iterdir())
    assert len(maps) == len(files)
    assert Image.open(maps[0]).size == (224, 224)


def test_a_threshold_of_ones_own(exported: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(next(images.rglob("*.png")))
    assert main([str(exported), file, "--threshold", "1e-9"]) == 0
    (line,) = lines(capsys.readouterr().out)
    assert line["defective"] is True
    assert main([str(exported), file, "--threshold", "1e9"]) == 0
    (line,) = lines(capsys.readouterr().out)
    assert line["defective"] is False


def test_a_folder_goes_on_past_broken_images(
    exported: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = next(images.rglob("*.png")).read_bytes()
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.png").write_bytes(whole)
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").write_text("no image")
    (tmp_path / "deep" / "d.png").write_bytes(whole)
    (tmp_path / "e.png").write_bytes(b"")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "f.png")  # 200 million pixels in 25 kB
    (tmp_path / ".hidden.png").write_text("no image")
    (tmp_path / "g.png").symlink_to("nowhere.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert main([str(exported), str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert [Path(str(line["image"])).name for line in lines(output.out)] == ["a.png", "d.png"]
    told = [line for line in output.err.splitlines() if line.startswith("not scored: ")]
    assert len(told) == 5
    assert "g.png does not exist" in told[4]
    assert "b.png is truncated or damaged" in told[0]
    assert "limit of 178 million pixels" in told[3]


def pipe(file: Path) -> Path:
    os.mkfifo(file)
    return file


def test_pipes_sockets_and_devices_are_told_and_the_others_scored(
    exported: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To open a pipe would wait for whoever writes to it."""
    named = pipe(tmp_path / "a.png")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "s.png"))
    whole = tmp_path / "whole.png"
    whole.write_bytes(next(images.rglob("*.png")).read_bytes())
    (tmp_path / "folder.png").mkdir()
    assert main([str(exported), str(named), "/dev/null", str(whole)]) == 1
    output = capsys.readouterr()
    assert [line["image"] for line in lines(output.out)] == [str(whole)]
    told = [line for line in output.err.splitlines() if line.startswith("not scored: ")]
    assert told == [
        f"not scored: image {named} is a pipe: name a file",
        "not scored: image /dev/null is a device: name a file",
    ]
    for everything in (tmp_path, f"{tmp_path}/*.png"):
        assert main([str(exported), str(everything)]) == 1
        output = capsys.readouterr()
        assert len(lines(output.out)) == 1
        assert "a.png is a pipe" in output.err
        assert "s.png is a socket" in output.err
        assert "folder.png" not in output.err


def test_a_video_that_is_a_pipe_is_told(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", types.ModuleType("cv2"))  # which is not asked to open it
    film = pipe(tmp_path / "film.mp4")
    assert main([str(exported), str(film)]) == 1
    assert f"not scored: video {film} is a pipe: name a file" in capsys.readouterr().err


def test_a_detector_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"detector\.onnx is a pipe"):
        Detector(pipe(tmp_path / "detector.onnx"))
    with pytest.raises(DetectorError, match="is a folder"):
        Detector(tmp_path)


def test_a_reader_that_has_seen_enough_ends_it_quietly(exported: Path, images: Path) -> None:
    done = subprocess.run(  # noqa: S602 a pipe is what is tested
        f"{sys.executable} -m prunecore_runtime {exported} {images} {images} | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert len(lines(done.stdout)) == 1
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk that every Linux has")
def test_a_full_disk_is_told_in_one_line(exported: Path, images: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "prunecore_runtime", str(exported), str(images)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_example_of_the_docs_runs(
    exported: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "detector.md").read_text(), flags=re.DOTALL)
    (tmp_path / "bottle.onnx").write_bytes(exported.read_bytes())
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(next(images.rglob("*.png")).read_bytes())
    (tmp_path / "example.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    assert runpy.run_path("example.py")["prediction"].maps.shape == (2, 224, 224)


def test_the_tolerances_are_as_told() -> None:
    told = " ".join((ROOT / "docs" / "detector.md").read_text().split())
    assert f"scores equal Python's to {TOLERANCE[BankPrecision.FLOAT32]} of their range" in told
    coarse = [TOLERANCE[each] for each in (BankPrecision.FLOAT16, BankPrecision.INT8)]
    assert f"{coarse[0]} (float16) or {coarse[1]} (int8) are allowed" in told
    assert MAPS == 5
    assert FOLDS == 5
    assert f"in blocks of {BLOCK:,} vectors" in told


def test_globs_and_single_files(exported: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(exported), str(images / "*" / "000.png")]) == 0
    assert len(lines(capsys.readouterr().out)) == len(list(images.glob("*/000.png")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "no such image, folder or video: nowhere.png"),
        (["*.nothing"], "no file matches '*.nothing'"),
        (["."], "folder . holds no images"),
        (["x" * 300], "cannot look for images"),
        (["nowhere.png", "--batch", "0"], "--batch 0 is outside 1 to 10000"),
        (["nowhere.png", "--batch", "9" * 30], f"--batch {'9' * 30} is outside 1 to 10000"),
        (["nowhere.png", "--threads", "0"], "0 threads are outside 1 to 1024"),
        (["nowhere.png", "--threads", "9" * 30], f"{'9' * 30} threads are outside 1 to 1024"),
        (["9" * 20], f"no such image, folder or video: {'9' * 20}"),
        (["nowhere.png", "--threshold", "0"], "threshold 0.0 is not above 0"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    exported: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(exported), *arguments]) == 2
    output = capsys.readouterr()
    assert not output.out
    assert message in output.err
    assert len(output.err.splitlines()) == 1


def test_a_video_is_scored_frame_by_frame_and_its_early_end_told(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "line.avi"
    video.write_bytes(b"read by the stand-in below")
    frames = [np.full((40, 60, 3), value, dtype=np.uint8) for value in (10, 200)]

    class Capture:
        def __init__(self, source: object) -> None:
            self.left = list(frames)

        def isOpened(self) -> bool:  # noqa: N802 OpenCV's name
            return True

        def get(self, what: int) -> float:
            return 5.0

        def read(self) -> tuple[bool, object]:
            return (True, self.left.pop(0)) if self.left else (False, None)

        def release(self) -> None:
            self.left = []

    stand_in = types.SimpleNamespace(
        VideoCapture=Capture,
        CAP_PROP_FRAME_COUNT=7,
        COLOR_BGR2RGB=4,
        cvtColor=lambda frame, code: frame[..., ::-1],
    )
    monkeypatch.setitem(sys.modules, "cv2", stand_in)
    assert main([str(exported), str(video)]) == 1
    output = capsys.readouterr()
    assert [line["image"] for line in lines(output.out)] == [f"{video}#0", f"{video}#1"]
    assert "ended after frame 2 of 5: what came before is scored" in output.err
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main([str(exported), str(video)]) == 2
    assert "pip install opencv-python-headless" in capsys.readouterr().err


def test_a_real_video_that_ends_mid_frame(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is an extra: pip install 'prunecore[video]'")
    video = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for value in range(20):
        writer.write(np.random.default_rng(value).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    assert main([str(exported), str(video)]) == 0
    assert len(lines(capsys.readouterr().out)) == 20
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    assert main([str(exported), str(video)]) == 1
    output = capsys.readouterr()
    assert 0 < len(lines(output.out)) < 20
    assert "ended after frame" in output.err


def test_heat_begins_at_half_of_the_threshold() -> None:
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    values = np.zeros((4, 4), dtype=np.float32)
    values[0], values[1] = 0.5, 9.0
    picture = overlay(image, values, 1.0)
    assert np.array_equal(picture[2:], image[2:])
    assert np.array_equal(picture[0], image[0])
    assert (picture[1] != 100).any(axis=-1).all()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_fit_export_and_predict_as_a_user_types_them(tiny_dataset: Path, images: Path, tmp_path: Path) -> None:
    backbone = ("--backbone", "mobilenet_v3_small", "--weights", "none", "--dataset", tiny_dataset)
    file, onnx_file = tmp_path / "grid.detector", tmp_path / "grid.onnx"
    several = run("fit", *backbone, "-o", file)
    assert several.exit_code == 2
    assert "printed_grid, woven_fabric: choose with --category" in several.stderr.replace("\n", " ")
    fitted = run("fit", *backbone, "--category", "printed_grid", "--bank-size", 30, "-o", file)
    assert fitted.exit_code == 0, fitted.output
    assert "held-out scores of 6 good images; bank of 30 patches" in fitted.stdout
    exported = run("export", file, "-o", onnx_file)
    assert exported.exit_code == 0, exported.output
    assert "equal to Python's detector on 12 images" in exported.stdout
    predicted = run("predict", onnx_file, images, "--batch", 4, "--threads", 1)
    assert predicted.exit_code == 0, predicted.output
    assert len(lines(predicted.stdout)) == len(list(images.rglob("*.png")))
    assert run("predict", onnx_file, tmp_path / "none.png").exit_code == 2
    assert "--save-maps" in run("predict", "--help").stdout
    refused = run("export", file, "-o", onnx_file, "--bank-precision", "int4")
    assert refused.exit_code == 2
    assert "did you mean int8" in refused.stderr
    assert run("fit", *backbone, "--category", "printed_grid", "--quantile", 1, "-o", file).exit_code == 2


def test_good_images_alone_are_enough_for_fit(tiny_dataset: Path, tmp_path: Path) -> None:
    good = shutil.copytree(tiny_dataset / "printed_grid" / "train" / "good", tmp_path / "grids" / "good")
    backbone = ("--backbone", "mobilenet_v3_small", "--weights", "none", "--dataset", good.parent)
    fitted = run("fit", *backbone, "--bank-size", 30, "-o", tmp_path / "grid.detector")
    assert fitted.exit_code == 0, fitted.output
    assert "held-out scores of 6 good images" in fitted.stdout
    assert "n/a" not in fitted.stderr


BLOCKED = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ImportError("this room has no " + name)
sys.meta_path.insert(0, Blocker())
from prunecore_runtime.cli import main
code = main(sys.argv[1:])
assert not set({heavy!r}) & set(sys.modules)
sys.exit(code)
"""


def test_the_runtime_imports_three_packages_and_opencv_alone() -> None:
    """By its source, so that an import inside a function counts too, and no registry is needed."""
    found: set[str] = set()
    for file in (ROOT / "prunecore_runtime").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).split(".")[0])
    assert found - sys.stdlib_module_names - {"prunecore_runtime"} == {"onnxruntime", "numpy", "PIL", "cv2"}


def test_it_runs_where_torch_cannot_be_imported(exported: Path, images: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(heavy=HEAVY), str(exported), str(images)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert len(lines(done.stdout)) == len(list(images.rglob("*.png")))


def test_compress_predict_does_not_wait_for_torch(exported: Path, images: Path) -> None:
    code = (
        "import sys\nfrom pipelines.cli import app\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert not {'torch', 'faiss', 'scipy', 'pandas', 'onnx'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(exported), str(next(images.rglob("*.png")))],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert len(lines(done.stdout)) == 1


def test_it_runs_in_an_environment_without_torch(exported: Path, images: Path, tmp_path: Path) -> None:
    """A fresh environment with onnxruntime, numpy, Pillow and this project alone, as docs/edge.md tells."""
    venv.create(tmp_path / "room", with_pip=True)
    python = str(tmp_path / "room" / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    got = subprocess.run([*pip, "onnxruntime", "numpy", "pillow"], capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"no package registry here: {got.stderr.strip().splitlines()[-1][:100]}")
    source = tmp_path / "source"  # a build leaves files behind
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for package in ("prunecore_runtime", "compress", "anomaly", "reports", "pipelines"):
        (source / package).symlink_to(ROOT / package)
    installed = subprocess.run([*pip, "--no-deps", str(source)], capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"the project cannot be built here: {installed.stderr.strip().splitlines()[-1][:100]}")
    there = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert there.returncode == 1
    script = Path(python).with_name("prunecore-predict")
    done = subprocess.run([str(script), str(exported), str(images)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(lines(done.stdout)) == len(list(images.rglob("*.png")))
