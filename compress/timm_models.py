"""Slim backbones under names of timm's registry, for programs that build their networks by `timm.create_model`.

import compress.timm_models
timm.create_model("prunecore_resnet18", features_only=True, checkpoint_path="resnet18-p50.safetensors")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import timm
from timm.models import generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import Tensor, nn

from compress.architectures import ARCHITECTURES, stages_of
from compress.artifact import load_backbone
from compress.backbone import Backbone, BackboneSpec, assemble, create_backbone, names_past_taps, tapped_at
from compress.errors import CompressError
from compress.feature_info import FeatureInfo
from compress.resize import shapes_of

PREFIX = "prunecore_"
_TRUNK = "backbone.trunk."  # what the names of a FeatureNet's tensors begin with
OutIndices = int | Sequence[int] | None

default_cfgs: dict[str, Any] = {}  # where timm looks for what it tells of a model
__all__: list[str] = ["PREFIX", "FeatureNet", "register_file"]  # timm adds the names of the models


class FeatureNet(nn.Module):
    """A backbone behaving as timm's `features_only` networks: a normalised batch in, a list of maps out.

    Like all that `timm.create_model` gives, it comes in training mode: call `.eval()` before you use its maps.

    The tensors of a slim file fit it whatever their widths, which is what makes timm's `checkpoint_path` work. timm
    does not read the rest of the file: the checksum is not checked, and the maps are those of `out_indices`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.train()

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.backbone(x)
        return maps

    @property
    def feature_info(self) -> FeatureInfo:
        """As in `Backbone`."""
        return self.backbone.feature_info

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What `timm.data.resolve_model_data_config` reads: the size, mean and std of images."""
        return _config(self.backbone.spec)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Take the tensors of a slim file, under the parent's names, or of a checkpoint of such a module.

        What the parent has past the last tap is left out. Tensors of the widths at hand are copied into the parameters,
        as in any module; for others all parameters are replaced, so make the optimizer afterwards.

        Raises:
            CompressError: tensors are missing, or are no slimming of the parent.
        """
        given = {name.removeprefix(_TRUNK): tensor for name, tensor in state_dict.items()}
        past = names_past_taps(self.backbone.spec)
        given = {name: tensor for name, tensor in given.items() if name not in past}
        if shapes_of(self.backbone.trunk) != {name: tuple(tensor.shape) for name, tensor in given.items()}:
            device = next(self.parameters()).device
            self.backbone = assemble(self.backbone.spec, given).to(device).train(self.training)
        return super().load_state_dict({_TRUNK + name: tensor for name, tensor in given.items()}, strict, assign)


def register_file(name: str, path: str | os.PathLike[str]) -> None:
    """Make `timm.create_model(name, features_only=True)` load the slim file `path`, in this process.

    For programs that take nothing but a name. The whole file is checked, and `pretrained` makes no difference.

    Args:
        name: letters, digits and underscores.

    Raises:
        CompressError: timm or this module knows `name` already, it cannot be one, or the file is refused.
    """
    if not name.isidentifier() or timm.is_model(name) or name in globals():
        raise CompressError(f"{name!r} is taken or is no name for timm: choose another of letters, digits, underscores")
    spec = load_backbone(path).spec
    _register(name, spec.architecture.name, lambda out_indices: load_backbone(path, out_indices=out_indices), spec)


def _dense(arch: str) -> Callable[[OutIndices], Backbone]:
    def build(out_indices: OutIndices) -> Backbone:
        if out_indices is None:
            return create_backbone(arch, weights="none")
        deepest = stages_of(ARCHITECTURES[arch])[-1:]
        return tapped_at(create_backbone(arch, weights="none", taps=deepest), out_indices)

    return build


def _register(name: str, arch: str, build: Callable[[OutIndices], Backbone], spec: BackboneSpec | None = None) -> None:
    def entry(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: Any = None,
        features_only: bool = False,
        out_indices: OutIndices = None,
        in_chans: int = 3,
        num_classes: int = 0,  # without a meaning for feature maps, in timm too; many programs pass it always
    ) -> FeatureNet:
        if not features_only or in_chans != 3:
            raise CompressError(f"{name} gives feature maps of RGB images alone: pass features_only=True, in_chans=3")
        if not pretrained or spec is not None:
            return FeatureNet(build(out_indices))
        file = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay).file
        if file is None:
            raise CompressError(
                f"{name} has no weights of its own: name a slim file, as checkpoint_path=FILE or as "
                "pretrained_cfg_overlay=dict(file=FILE)"
            )
        backbone = load_backbone(file, out_indices=out_indices)
        if backbone.spec.arch != arch:
            raise CompressError(f"{file} holds a {backbone.spec.arch}: create {PREFIX}{backbone.spec.arch}")
        return FeatureNet(backbone)

    entry.__name__, entry.__module__ = name, __name__
    default_cfgs.update(generate_default_cfgs({name: _config(spec or ARCHITECTURES[arch])}))
    globals()[name] = register_model(entry)


def _config(network: Any) -> dict[str, Any]:
    """Of a spec or an architecture, in timm's words."""
    side = network.size
    return {
        "input_size": (3, side, side),
        "mean": network.mean,
        "std": network.std,
        "interpolation": "bilinear",
        "num_classes": 0,
    }


for _arch in ARCHITECTURES:
    _register(f"{PREFIX}{_arch}", _arch, _dense(_arch))
