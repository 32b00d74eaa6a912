"""From a plan to its runs: one backbone on one category each, checked, named, and keyed by all that goes in."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from anomaly import Category, fingerprint
from anomaly.progress import Track, quiet
from compress import Backbone, create_backbone
from compress.errors import CompressError
from pipelines.backbone_store import Request
from pipelines.console import note
from pipelines.data import open_categories
from pipelines.evaluate import DetectorSettings
from pipelines.image_sets import open_images, open_labelled_images
from pipelines.places import find_weights
from pipelines.quantizing import Quantizing
from pipelines.slimming import Images, Slimming
from pipelines.sweep_plan import INT8, SweepPlan

# What makes rows of one version comparable; raise it when the same inputs give other numbers.
_PROTOCOL = 2
_LONGEST = 100  # characters that a dataset and its category have in a file's name, of which no more than 255 may be


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep: the row `name`, made from what `key` is the hash of."""

    name: str
    key: str
    request: Request
    category: Category
    settings: DetectorSettings
    data_fingerprint: str

    @property
    def kind(self) -> str:
        """What takes about as long to evaluate."""
        return f"{self.request.parent.spec.arch} on {self.category.dataset}/{self.category.name}"


def open_runs(plan: SweepPlan, *, track: Track = quiet) -> list[SweepRun]:
    """The runs of `plan`, in their order; reads its images and the fingerprints of its datasets.

    Raises:
        CompressError, AnomalyError: a dataset, the images or the weights are not to be had, or a slimming asks for
            what it was not given.
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
    quantizing = _quantizing(plan, images, [material for _, material in slimmings], track)
    requests = [
        Request(parents[arch, seed], *slimming, seed, quantizing if precision == INT8 else None)
        for arch in plan.archs
        for seed in plan.seeds
        for slimming in slimmings
        for precision in plan.precisions
    ]
    keys = [(request, request.key, plan.detector(request.seed)) for request in requests]
    return [
        SweepRun(_slug(request.name, category), _key(made_from, settings, data), request, category, settings, data)
        for request, made_from, settings in keys
        for category in categories
        for data in [prints[category.dataset, category.name]]
    ]


def _quantizing(plan: SweepPlan, images: Images, materials: list[Images], track: Track) -> Quantizing | None:
    """How int8 is made; refuses images that neither it nor a slimming, which has its `materials`, reads."""
    calibrating = images
    if plan.calibration_images:
        calibrating = Images(open_images(plan.calibration_images, track=track))
    quantizing = plan.quantizing(calibrating)
    if quantizing:
        quantizing.check()
    used = materials + ([Images(images.plain)] if quantizing and calibrating is images else [])
    if plan.images and not any(each.unlabelled for each in used):
        raise CompressError("nothing in this sweep reads images: leave them out, or add a recovery or int8")
    if plan.labelled and not any(each.labelled or each.unlabelled for each in used):
        raise CompressError("nothing in this sweep reads images with classes: leave them out, or recover by finetune")
    return quantizing


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
    # Folder names come from outside: only plain characters, and not too many, reach a file name.
    name = f"{category.dataset}-{category.name}"
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:_LONGEST]
    if plain != name:  # names that differ only in what was replaced or cut off must not share a file
        plain += f"-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return f"{backbone}-{plain}"
