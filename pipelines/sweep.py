"""Many runs: backbones x datasets x seeds, one file each, resumed where they stopped."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from anomaly import Category, fingerprint
from anomaly.errors import AnomalyError
from anomaly.progress import Track, quiet
from compress import Backbone, create_backbone
from compress.errors import CompressError
from compress.training import Report
from pipelines.backbone_store import BackboneStore, Request
from pipelines.console import note
from pipelines.data import open_categories
from pipelines.evaluate import DetectorSettings, evaluate
from pipelines.image_sets import open_images, open_labelled_images
from pipelines.places import find_weights
from pipelines.results import is_finished, write_failure, write_result
from pipelines.slimming import Images, Slimming
from pipelines.sweep_plan import INT8, SweepPlan

# What makes rows of one version comparable; raise it when the same inputs give other numbers.
_PROTOCOL = 2


@dataclass(frozen=True)
class SweepOutcome:
    """Counts of runs by how they ended: run now, found finished, failed."""

    run: int
    kept: int
    failed: int


def sweep(
    plan: SweepPlan, folder: Path, *, command: str, track: Track = quiet, report: Report | None = None
) -> SweepOutcome:
    """Run `plan` into `folder`: per run a row and pictures, per backbone an artifact in `folder`/backbones.

    A run whose result is there, made from the same inputs, is kept. A run that is refused is recorded
    with its reason and the rest goes on. Killed, a sweep loses the run in progress, and of a training what
    came after its last check.

    Raises:
        CompressError, AnomalyError: the folder, a dataset, the images or the weights are not to be had, or a
            slimming asks for what it was not given, before any run.
    """
    categories = open_categories(plan.datasets, plan.categories, track=track)
    prints = {(category.dataset, category.name): fingerprint(category) for category in categories}
    parents = {(arch, seed): _parent(plan, arch, seed) for arch in plan.archs for seed in plan.seeds}
    images = Images(
        open_images(plan.images, track=track) if plan.images else None,
        open_labelled_images(plan.labelled, track=track) if plan.labelled else None,
    )
    slimmings = [(slimming, _material(slimming, images)) for slimming in plan.slimmings()]
    for slimming, material in slimmings:
        if slimming:
            slimming.check(material)
    calibrating = images
    if plan.calibration_images:
        calibrating = Images(open_images(plan.calibration_images, track=track))
    quantizing = plan.quantizing(calibrating)
    if quantizing:
        quantizing.check()
    used = [material for _, material in slimmings] + (
        [Images(images.plain)] if quantizing and calibrating is images else []
    )
    if plan.images and not any(each.unlabelled for each in used):
        raise CompressError("nothing in this sweep reads images: leave them out, or add a recovery or int8")
    if plan.labelled and not any(each.labelled or each.unlabelled for each in used):
        raise CompressError("nothing in this sweep reads images with classes: leave them out, or recover by finetune")
    store = BackboneStore(folder / "backbones", track=track, report=report)
    runs = [
        (Request(parents[arch, seed], *slimming, seed, quantizing if precision == INT8 else None), category)
        for arch in plan.archs
        for seed in plan.seeds
        for slimming in slimmings
        for precision in plan.precisions
        for category in categories
    ]
    run = kept = failed = 0
    for request, category in track(runs, "sweep", len(runs)):
        name = _slug(request.name, category)
        settings = plan.detector(request.seed)
        data = prints[category.dataset, category.name]
        key = _key(request.key, settings, data)
        if is_finished(folder, name, key):
            kept += 1
            continue
        try:
            backbone = store.get(request)
            row, examples = evaluate(backbone, category, settings, command=command, data_fingerprint=data, track=track)
        except (CompressError, AnomalyError) as error:
            write_failure(folder, name, str(error))
            note(f"failed: {name}: {error}")
            failed += 1
            continue
        write_result(folder, name, row, examples, key)
        note(f"{name}: image AUROC {row.image_auroc:.3f}" if row.image_auroc is not None else name)
        run += 1
    store.forget_phases(request for request, _ in runs)
    return SweepOutcome(run, kept, failed)


def _parent(plan: SweepPlan, arch: str, seed: int) -> Backbone:
    parent = create_backbone(arch, weights=find_weights(arch, plan.weights), taps=plan.taps, seed=seed)
    note(f"{arch}: weights {parent.spec.weights.source}, taps {', '.join(parent.spec.taps)}")
    return parent


def _material(slimming: Slimming | None, images: Images) -> Images:
    """The images that a slimming has a use for: what others in the plan learn from does not change its result."""
    return Images() if slimming is None else slimming.used(images)


def _key(backbone: str, settings: DetectorSettings, data: str) -> str:
    """What a row was made from, as one hash: equal inputs, equal key."""
    described = json.dumps([_PROTOCOL, backbone, settings.key(), data], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _slug(backbone: str, category: Category) -> str:
    # Folder names come from outside: only plain characters reach a file name.
    name = f"{category.dataset}-{category.name}"
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    if plain != name:  # names that differ only in other characters must not share a file
        plain += f"-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return f"{backbone}-{plain}"
