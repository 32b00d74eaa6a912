"""Files of backbones and detectors, and states of trainings. Some damage is signed anew, to get past checksums."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import onnx
import torch
from google.protobuf.message import DecodeError
from safetensors import safe_open
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

import compress
from anomaly import open_dataset
from anomaly.datasets.generated import generate
from benchmarks.fuzz.containers import damaged_safetensors, damaged_tensors, damaged_zip, entries_of, zipped
from benchmarks.fuzz.damage import damaged, damaged_json
from benchmarks.fuzz.reader import Reader, in_a_file
from compress import CompressError, Recipe
from compress.artifact import _digest as digest_of_artifact
from compress.export.header import _digest as digest_of_onnx
from compress.export.header import read_model
from compress.files import require_file
from compress.training import Run, TrainingSet, train
from compress.weights.fetched import Fetched, fit_to
from compress.weights.tensor_file import read_tensors
from pipelines.detector_file import DESCRIPTION, FittedDetector, load_detector, save_detector
from pipelines.export import export_detector
from pipelines.fit import FitSettings, fit_detector
from prunecore_runtime import Detector, DetectorError
from prunecore_runtime.detector import KEY
from prunecore_runtime.seal import sealed

ARCH, TAPS = "resnet18", ("relu", "layer1")
_SIGNED = 0.1  # of the inputs: these reach what is behind the checksum, and take fifty times as long


def slim_backbone() -> compress.Backbone:
    """A small one: 70 kB."""
    return compress.prune(compress.create_backbone(ARCH, weights="none", taps=TAPS), ratio=0.8)


def artifact(workshop: Path) -> Reader:
    """`compress.load_backbone`."""
    file = workshop / "seed.safetensors"
    compress.save(slim_backbone(), file)
    whole, tensors = file.read_bytes(), load_file(file)
    with safe_open(file, "pt") as opened:
        header = opened.metadata()

    def signed(rng: Random) -> bytes:
        state, description = tensors, header["backbone"]
        if rng.random() < 0.5:
            state = damaged_tensors(rng, tensors)
        else:
            description = damaged_json(rng, json.loads(description)).encode("utf-8", "replace").decode()
        return save(state, {**header, "backbone": description, "sha256": digest_of_artifact(description, state)})

    def harm(rng: Random) -> bytes:
        if rng.random() < _SIGNED:
            return signed(rng)
        return damaged_safetensors(rng, whole) if rng.random() < 0.5 else damaged(rng, whole)

    return Reader(".safetensors", in_a_file(harm), compress.load_backbone, (CompressError,))


def weights(workshop: Path) -> Reader:
    """Weights in a PyTorch checkpoint or a .safetensors file, as `--weights FILE` reads them."""
    network = compress.create_backbone("mobilenet_v3_small", weights="none", taps=("features.1",)).trunk
    state = network.state_dict()
    torch.save({"state_dict": state, "epoch": 3, "note": ["x", {"lr": 0.1}]}, workshop / "seed.pth")
    torch.save(state, workshop / "old.pth", _use_new_zipfile_serialization=False)
    pickled = [(workshop / name).read_bytes() for name in ("seed.pth", "old.pth")]
    plain = save(state)

    def harm(rng: Random, place: Path) -> None:
        kind = rng.randrange(6)
        if kind == 0:
            content = damaged_safetensors(rng, plain)
        elif kind == 1:
            content = save(damaged_tensors(rng, state))
        elif kind == 2:
            content = damaged_zip(rng, entries_of(pickled[0]))
        elif kind == 3:
            content = _pickled_oddly(rng, state)
        else:
            content = damaged(rng, rng.choice(pickled), pickled)
        place.write_bytes((b"S" if kind < 2 else b"P") + content)

    def read(place: Path) -> object:
        # The suffix decides what reads it; the first byte told which was meant.
        suffix = ".pth"
        if place.is_file() and not place.is_symlink() and place.stat().st_size:
            content = place.read_bytes()
            suffix = ".safetensors" if content[:1] == b"S" else ".pth"
            place = place.with_suffix(suffix)
            place.write_bytes(content[1:])
        fetched = Fetched("seed", read_tensors(require_file(place)), None)
        network.load_state_dict(fit_to(network, fetched))
        return fetched

    return Reader(".weights", harm, read, (CompressError,))


def _pickled_oddly(rng: Random, state: dict[str, Tensor]) -> bytes:
    """A checkpoint whose pickle is whole, with one tensor of a kind or a view that no network is kept in."""
    name = rng.choice([name for name, tensor in state.items() if tensor.is_floating_point()])
    tensor = state[name]
    odd: tuple[object, ...] = (
        *(tensor.to_sparse(), tensor.to("meta"), tensor.to(torch.complex64), tensor.double(), tensor.bool()),
        *(torch.zeros(1).expand(tensor.shape), torch.zeros(1).expand(10**12), nn.Parameter(tensor), {name: tensor}),
        *(torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), bytearray(100), "x" * 10**6, 10**400, None),
    )
    buffer = io.BytesIO()
    torch.save({**state, name: rng.choice(odd)}, buffer, _use_new_zipfile_serialization=rng.random() < 0.5)
    return buffer.getvalue()


def checkpoint(workshop: Path) -> Reader:
    """A training that goes on from its checkpoint."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8, generator=generator) for _ in range(10)]
    recipe = Recipe(lr=1e-2, batch=2, crop=32, warm_up=1, check_every=2, holdout=0.0)
    data = TrainingSet.of(images, recipe, mean=(0.5,) * 3, std=(0.25,) * 3)

    def resume(file: Path) -> object:
        torch.manual_seed(0)
        student = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))

        def loss(batch: Tensor, labels: Tensor | None, progress: float) -> Tensor:
            mean: Tensor = student(batch).square().mean()
            return mean

        return train(student, loss, data, Run(4, recipe, checkpoint=file), request={"verb": "fuzz"}, title="")

    file = workshop / "seed.state"
    resume(file)
    whole = file.read_bytes()
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    tensors = load(whole)

    def harm(rng: Random) -> bytes:
        kind = rng.randrange(4)
        if kind == 0:
            return save(damaged_tensors(rng, tensors), header)
        if kind == 1:
            part = rng.choice(("progress", "request"))
            text = damaged_json(rng, json.loads(header[part])).encode("utf-8", "replace").decode()
            return save(tensors, {**header, part: text})
        return damaged_safetensors(rng, whole) if kind == 2 else damaged(rng, whole)

    return Reader(".state", in_a_file(harm), resume, (CompressError,))


def onnx_backbone(workshop: Path) -> Reader:
    """`compress.load_onnx`."""
    file = workshop / "seed.onnx"
    compress.export_onnx(slim_backbone(), file)
    whole = file.read_bytes()
    model, _ = read_model(file)
    bare = model.SerializeToString()
    header = {entry.key: entry.value for entry in onnx.load_model_from_string(whole).metadata_props}

    def signed(rng: Random) -> bytes:
        changed, description = onnx.ModelProto(), header["prunecore"]
        changed.CopyFrom(model)
        if rng.random() < 0.5:
            try:
                changed.ParseFromString(damaged(rng, bare))
            except DecodeError:
                return damaged(rng, whole)
            del changed.metadata_props[:]
        else:
            description = damaged_json(rng, json.loads(description)).encode("utf-8", "replace").decode()
        digest = digest_of_onnx(description, changed)
        onnx.helper.set_model_props(changed, {**header, "prunecore": description, "sha256": digest})
        return changed.SerializeToString()

    def harm(rng: Random) -> bytes:
        return signed(rng) if rng.random() < _SIGNED else damaged(rng, whole)

    return Reader(".onnx", in_a_file(harm), lambda place: compress.load_onnx(place, threads=1), (CompressError,))


def fitted_detector(workshop: Path) -> FittedDetector:
    """On a few images of one generated surface."""
    folder = generate(workshop / "tiny", seed=3, surfaces=["printed_grid"], train=3, good=1, per_defect=1)
    (category,) = open_dataset(str(folder), cache=workshop)
    return fit_detector(slim_backbone(), category, FitSettings(bank_size=8, quantile=0.5), command="compress fit")


def detector(workshop: Path) -> Reader:
    """`load_detector`: the zip of `compress fit`."""
    file = workshop / "seed.detector"
    save_detector(fitted_detector(workshop), file)
    whole = file.read_bytes()
    entries = entries_of(whole)

    def signed(rng: Random) -> bytes:
        changed = dict(entries)
        described = json.loads(changed.pop(DESCRIPTION))
        if rng.random() < 0.6:
            name = rng.choice(list(changed))
            if rng.random() < 0.5:
                changed[name] = damaged(rng, changed[name])
            else:
                changed[name] = save(damaged_tensors(rng, load(changed[name])))
            described["sha256"] = {each: hashlib.sha256(content).hexdigest() for each, content in changed.items()}
            text = json.dumps(described)
        else:
            text = damaged_json(rng, described)
        listed = {DESCRIPTION: text.encode("utf-8", "surrogatepass"), **changed}
        return damaged_zip(rng, listed) if rng.random() < 0.1 else zipped(listed, zipfile.ZIP_STORED)

    def harm(rng: Random) -> bytes:
        if rng.random() < _SIGNED:
            return signed(rng)
        return damaged_zip(rng, entries) if rng.random() < 0.5 else damaged(rng, whole)

    return Reader(".detector", in_a_file(harm), load_detector, (CompressError,))


def exported(workshop: Path) -> Reader:
    """`prunecore_runtime.Detector`: the file of `compress export`."""
    file = workshop / "seed.onnx"
    export_detector(fitted_detector(workshop), file)
    whole = file.read_bytes()
    model = onnx.load_model_from_string(whole)
    (told,) = (entry.value for entry in model.metadata_props if entry.key == KEY)
    del model.metadata_props[:]
    bare = model.SerializeToString()

    def signed(rng: Random) -> bytes:
        if rng.random() < 0.5:
            return sealed(damaged(rng, bare))
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        text = damaged_json(rng, json.loads(told)).encode("utf-8", "replace").decode()
        onnx.helper.set_model_props(changed, {KEY: text})
        return sealed(changed.SerializeToString())

    def harm(rng: Random) -> bytes:
        return signed(rng) if rng.random() < _SIGNED else damaged(rng, whole)

    return Reader(".onnx", in_a_file(harm), lambda place: Detector(place, threads=1), (DetectorError,))


READERS: dict[str, Callable[[Path], Reader]] = {
    "artifact": artifact,
    "weights": weights,
    "checkpoint": checkpoint,
    "onnx": onnx_backbone,
    "detector": detector,
    "exported": exported,
}
