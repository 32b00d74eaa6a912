"""The verb: a float backbone and calibration images in, an int8 backbone out, with the record of what it cost."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import onnx
import onnxruntime
from torch import Tensor

from compress.artifact import digest_of_tensors
from compress.backbone import Backbone
from compress.cost import cost_of
from compress.errors import CompressError, unknown
from compress.export import Header, OnnxBackbone, to_graph
from compress.export.parity import relative_error, require_float_parity
from compress.export.views import normalised_views
from compress.image_kinds import require_sequence
from compress.progress import Track, quiet
from compress.quantization.affine import Range
from compress.quantization.bias_correction import corrected
from compress.quantization.calibrators import LEAST_IMAGES, Calibration
from compress.quantization.equalization import equalized
from compress.quantization.layers import layers_without_kernel, matching_layers, nodes_of, roundable_layers
from compress.quantization.openvino import import_nncf, nncf_rounder
from compress.quantization.pixel_levels import FLOAT_NODES, PIXELS, in_one_step, over_pixels, pixel_range
from compress.quantization.qdq import rounded
from compress.quantization.ranking import LayerError, map_error, maps_of, rank_layers
from compress.quantization.search import FloatSearch, Limit, fewest_float
from compress.quantization.second_moments import second_moments
from compress.quantization.streaming import collect, spread, useful
from compress.quantization.weight_rounding import rounded_filters

CHECKED = 8  # images that the result is checked on, none of which it was calibrated on
TOLERANCE = 0.5  # relative error of a map above which int8 is taken for broken: 6 dB of signal over noise
_OF_MAPS = "relative error of the maps"
ASKED, HURTS, NO_KERNEL = "asked for", "hurts", "no integer kernel"

MaxDrop = Limit[OnnxBackbone]
"""A caller's own measure of what int8 costs, and how much of it is allowed."""


def quantize(
    backbone: Backbone,
    images: Sequence[Tensor],
    *,
    calibration: Calibration | None = None,
    keep_float: Sequence[str] = (),
    max_error: float | None = None,
    max_drop: MaxDrop | None = None,
    backend: str = "onnxruntime",
    opset: int = 18,
    track: Track = quiet,
) -> OnnxBackbone:
    """`backbone` with int8 weights and activations (see `affine` for the formulas); it is left as it was.

    Args:
        images: uint8 RGB (3, H, W) of any sizes, read as they are needed; at least 16, never test images. Eight of them
            are kept out of the calibration and serve for the check, the ranking and `max_error`.
        keep_float: glob patterns over the parent's layer names; what matches stays float.
        max_error: the largest relative error ||f - q|| / ||f|| of a tap's map, in (0, 1): as few further layers as are
            needed stay float, those that hurt most first.
        max_drop: the same with another measure.
        backend: `onnxruntime`, or `openvino` (NNCF chooses ranges and kernels; an extra).
        opset: of the ONNX file, 18 to 23.

    Returns:
        A backbone whose header's `quantization` tells calibration, errors, and which layers stay float and why.

    Raises:
        CompressError: too few images, a pattern that matches nothing, a limit that cannot be met, an operator without
            ONNX form, or maps that are off by more than half their norm; the message names the fewest layers that
            bring them within it by staying float, where that can be found by trying each.
    """
    calibration = calibration or Calibration()
    check_backend(backend, calibration)
    if max_error is not None and max_drop is not None:
        raise CompressError("a largest error and a largest drop are two searches: give one of them")
    if max_error is not None and not 0 < max_error < 1:
        raise CompressError(f"a relative error of {max_error:g} is outside (0, 1): 0.05 is strict, 0.2 is loose")
    check_images(images)
    seen, checked = places(len(images), calibration.count, CHECKED)
    check = normalised_views(images, checked, backbone.spec)
    graph = to_graph(backbone, opset=opset)
    model = graph.model
    asked = matching_layers(model, keep_float)
    float_deviation = require_float_parity(backbone, graph, check[:2])
    reference = maps_of(model, check)
    round_but = BACKENDS[backend](model, backbone, images, seen, calibration, track)
    header = Header(backbone.spec, "int8", cost_of(backbone), runtime=backend)

    def made(float_layers: Sequence[str]) -> OnnxBackbone:
        return OnnxBackbone(round_but(float_layers), header)

    def error(candidate: OnnxBackbone) -> float:
        return map_error(reference, [found.numpy() for found in candidate(check)])

    def ranked() -> list[LayerError]:
        free = [layer for layer in roundable_layers(model) if layer not in asked]
        return rank_layers(free, lambda but: round_but([*asked, *but]), reference, check, track=track)

    def fewest(ranking: Sequence[LayerError], limit: MaxDrop) -> FloatSearch[OnnxBackbone]:
        worst_first = [each.layer for each in ranking]
        return fewest_float(len(worst_first), lambda count: made([*asked, *worst_first[:count]]), limit)

    limit = max_drop
    if max_error is not None:
        limit = MaxDrop(_OF_MAPS, max_error, error)
    ranking = ranked() if limit else []
    search = fewest(ranking, limit) if limit else None
    found = search.best if search else made(asked)
    hurting = ranking[: search.count] if search else []
    errors = [relative_error(one, other.numpy()) for one, other in zip(reference, found(check), strict=True)]
    if not max(errors) <= TOLERANCE:  # a NaN is no parity either
        cure = "give more images to calibrate on, or such as the detector sees, or stay with float"
        if math.isfinite(max(errors)) and backend == "onnxruntime":  # NNCF calibrates anew for every choice of layers
            with contextlib.suppress(CompressError):  # no choice helps
                ranking = ranking or ranked()
                enough = fewest(ranking, MaxDrop(_OF_MAPS, TOLERANCE, error))
                cure = _cure(ranking[: enough.count], dict(enough.trials)[enough.count])
        raise CompressError(
            f"the int8 maps of this {backbone.spec.arch} have a relative error of {max(errors):.2f}, "
            f"{TOLERANCE:g} is allowed: {cure}"
        )
    method = calibration.method if backend == "onnxruntime" else "nncf"
    record = {
        "backend": backend,
        "calibration": method,
        "percentile": calibration.percentile if method == "percentile" else None,
        "images": len(seen),
        "images_fingerprint": getattr(images, "fingerprint", None),
        "float_tensors": digest_of_tensors(backbone),
        "float_deviation": float_deviation,
        "map_errors": dict(zip(backbone.spec.taps, errors, strict=True)),
        "limit": None if limit is None else {"title": limit.title, "limit": limit.limit},
        "trials": list(search.trials) if search else [],
        "layers": len(roundable_layers(model)),
        "float": _why(model, asked, hurting),
        "ranking": [[each.layer, round(each.error, 5)] for each in ranking],
        "onnxruntime": onnxruntime.__version__,
    }
    return OnnxBackbone(found.model, replace(header, quantization=record), threads=found.threads)


def check_images(images: Sequence[Any]) -> None:
    """Raises CompressError for too few images, or an iterator in their place."""
    require_sequence(images)
    needed = LEAST_IMAGES + CHECKED
    if len(images) < needed:
        raise CompressError(
            f"{len(images)} images are too few to calibrate on: {needed} are needed, {LEAST_IMAGES} to calibrate and "
            f"{CHECKED} to check; 100 or more are better, and any photographs or good parts will do"
        )


def places(images: int, count: int, held: int) -> tuple[list[int], list[int]]:
    """Which of `images` images to use, `count` at most, and which `held` others to keep out: both spread evenly."""
    chosen = spread(range(images), count + held)
    out = spread(chosen, held)
    return [place for place in chosen if place not in out], out


def _why(model: onnx.ModelProto, asked: Sequence[str], hurting: Sequence[LayerError]) -> dict[str, str]:
    """The layers that stay float, each with the reason."""
    kernels = {layer: f"{NO_KERNEL} for {operator}" for layer, operator in layers_without_kernel(model).items()}
    return {**kernels, **dict.fromkeys(asked, ASKED), **{each.layer: f"{HURTS}: {each.error:.3f}" for each in hurting}}


def _cure(hurting: Sequence[LayerError], error: float) -> str:
    options = " ".join(f"--keep-float {each.layer}" for each in hurting)
    return (
        f"{options} (beside what is kept already) brings it to {error:.2f}; `compress quantize --max-error` finds what "
        "a stricter limit takes"
    )


RoundBut = Callable[[Sequence[str]], onnx.ModelProto]
"""From the layers that stay float to the int8 model."""


def _onnxruntime(
    model: onnx.ModelProto,
    backbone: Backbone,
    images: Sequence[Any],
    places: Sequence[int],
    calibration: Calibration,
    track: Track,
) -> RoundBut:
    exact, unrounded, floors = equalized(model, backbone.spec, images, places, track=track)
    pixelwise = over_pixels(exact, backbone.spec)
    seen = collect(pixelwise, backbone.spec, images, places, track=track)
    ranges = useful(pixelwise, {name: calibration.range_of(histogram) for name, histogram in seen.histograms.items()})
    ranges |= {name: Range(max(floor, ranges[name].low), ranges[name].high) for name, floor in floors.items()}
    ranges[PIXELS] = pixel_range(backbone.spec)
    filters = rounded_filters(pixelwise, second_moments(pixelwise, backbone.spec, images, places, track=track))

    def round_but(float_layers: Sequence[str]) -> onnx.ModelProto:
        float_nodes = [*nodes_of(model, float_layers), *unrounded, *FLOAT_NODES]
        found = rounded(corrected(pixelwise, filters, seen.means, float_nodes), ranges, float_nodes)
        return in_one_step(found, backbone.spec)

    return round_but


def _openvino(
    model: onnx.ModelProto,
    backbone: Backbone,
    images: Sequence[Any],
    places: Sequence[int],
    calibration: Calibration,
    track: Track,
) -> RoundBut:
    return nncf_rounder(model, backbone, images, places)


Backend = Callable[[onnx.ModelProto, Backbone, Sequence[Any], Sequence[int], Calibration, Track], RoundBut]
BACKENDS: dict[str, Backend] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
"""By name, what chooses the rounding and writes the int8 model."""


def check_backend(name: str, calibration: Calibration) -> None:
    """Raises CompressError for a backend that there is not, that lacks packages, or does not read `calibration`."""
    if name not in BACKENDS:
        raise unknown("backend", name, BACKENDS, "onnxruntime is the default")
    if name == "openvino":
        if calibration != Calibration(count=calibration.count):
            raise CompressError("with backend openvino NNCF chooses the ranges: leave calibration and percentile out")
        import_nncf()
