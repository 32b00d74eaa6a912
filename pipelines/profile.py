"""What `compress profile` tells of a backbone."""

from __future__ import annotations

import dataclasses
from typing import Any

from compress import Backbone, Cost, OnnxBackbone, cost_of
from compress.artifact import artifact_bytes
from compress.backbone import dense_widths
from pipelines.models import precision_of, runtime_of

SIZES = (*(field.name for field in dataclasses.fields(Cost)), "file_bytes")


def sizes(backbone: Backbone | OnnxBackbone) -> dict[str, int]:
    """Parameters, MACs and file bytes, under their names in a row of results."""
    if isinstance(backbone, OnnxBackbone):
        return {**dataclasses.asdict(backbone.cost), "file_bytes": backbone.file_bytes}
    return {**dataclasses.asdict(cost_of(backbone)), "file_bytes": artifact_bytes(backbone)}


def describe(backbone: Backbone | OnnxBackbone) -> dict[str, Any]:
    """Everything about `backbone` but its tensors; `layers` maps pruned layers to (channels before, after).

    Of an int8 one, `calibration` tells how its ranges were found, `float_layers` which layers are not int8, and
    `map_errors` how far its maps were from the float ones.
    """
    spec, info = backbone.spec, backbone.feature_info
    pruning = spec.pruning
    before = dense_widths(spec) if pruning else {}
    return {
        "arch": spec.arch,
        "taps": list(spec.taps),
        "channels": info.channels(),
        "reduction": info.reduction(),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "size": spec.size,
        "weights": spec.weights.source,
        "weights_sha256": spec.weights.sha256,
        "method": pruning.method if pruning else None,
        "ratio": pruning.ratio if pruning else None,
        "scope": pruning.scope if pruning else None,
        "sparse_steps": pruning.sparse_steps if pruning else None,
        "recover": pruning.recover if pruning else None,
        "recover_steps": pruning.recover_steps if pruning else None,
        "seed": pruning.seed if pruning else None,
        "precision": precision_of(backbone),
        "runtime": runtime_of(backbone),
        **_quantized(backbone),
        **sizes(backbone),
        "layers": {name: (before[name], len(kept)) for name, kept in (pruning.kept if pruning else {}).items()},
    }


def _quantized(backbone: Backbone | OnnxBackbone) -> dict[str, Any]:
    record = backbone.header.quantization if isinstance(backbone, OnnxBackbone) else None
    if not record:
        return {}
    return {
        "calibration": record["calibration"],
        "calibration_images": record["images"],
        "float_layers": list(record["float"]),
        "map_errors": [round(error, 4) for error in record["map_errors"].values()],
    }


def history(slim: Backbone) -> str:
    """What was done to a pruned backbone, in one line."""
    pruning = slim.spec.pruning
    if pruning is None:
        return f"weights: {slim.spec.weights.source}; dense"
    told = f"weights: {slim.spec.weights.source}; {pruning.method} at ratio {pruning.ratio:.3g}, scope {pruning.scope}"
    if pruning.sparse_steps is not None:
        told += f"; sparse phase of {pruning.sparse_steps} steps" if pruning.sparse_steps else "; one shot"
    if pruning.recover == "none":
        suffered = "; no recovery was done, so features have suffered: --images DIR recovers"
        return told + (suffered if pruning.kept else "")
    return f"{told}; recovery: {pruning.recover}, {pruning.recover_steps} steps"
