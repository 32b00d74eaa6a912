"""What the maps of a backbone look like, told as timm's `features_only` networks tell it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


class FeatureInfo:
    """The stages of a backbone up to its last tap, shallow first, and which of them are tapped.

    Methods, keys and numbering are those of timm's class of this name. Without `idx` a method tells of the tapped
    stages, one entry per map; with it, of stage number `idx`, or of each of several, tapped or not.

    Attributes:
        info: per stage a dictionary of `module` (its name), `num_chs` (channels of its map), `reduction` (stride, in
            input pixels) and `index`.
        out_indices: the numbers of the tapped stages, ascending.
    """

    def __init__(
        self,
        names: Sequence[str],
        channels: Sequence[int],
        reductions: Sequence[int],
        out_indices: Sequence[int] | None = None,
    ) -> None:
        rows = zip(names, channels, reductions, strict=True)
        self.info: list[dict[str, Any]] = [
            {"num_chs": width, "reduction": stride, "module": name, "index": index}
            for index, (name, width, stride) in enumerate(rows)
        ]
        self.out_indices = tuple(range(len(names)) if out_indices is None else out_indices)

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Channels C_i of each map."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Stride of each map, in input pixels."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """The stages that the maps come out of."""
        return self.get("module", idx)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """The value under `key`: a list, or one value where `idx` is one number."""
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[index][key] for index in (self.out_indices if idx is None else idx)]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None) -> Any:
        """Copies of the dictionaries, or of their entries `keys`."""
        if isinstance(idx, int):
            return {key: self.info[idx][key] for key in (self.info[idx] if keys is None else keys)}
        return [self.get_dicts(keys, index) for index in (self.out_indices if idx is None else idx)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.info[index]

    def __len__(self) -> int:
        return len(self.info)


def reduction(side: int, map_side: int) -> int:
    """The stride of a map from an image of `side` pixels: networks without padding give slightly smaller maps, so
    it is the nearest power of two.
    """
    return int(2 ** round(math.log2(side / map_side)))
