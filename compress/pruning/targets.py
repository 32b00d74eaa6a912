"""Targets that a user thinks in (parameters, MACs, bytes, milliseconds) instead of a ratio."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from compress.artifact import artifact_bytes
from compress.backbone import Backbone, dense_parent
from compress.cost import count_macs, count_parameters
from compress.errors import CompressError, unknown
from compress.pruning.latency import measure_latency
from compress.pruning.ranking import Ranking
from compress.recovery import RECOVERIES

_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_GUESSES = 3  # by the power law, before the bracket is closed by doubling strides and by halving


@dataclass(frozen=True)
class Quantity:
    """What a target bounds.

    Attributes:
        title: as messages call it.
        units: by name, what each is worth in the unit that `measure` counts in.
        example: for messages.
        measure: the quantity of a backbone.
        steps: ratios tried lie on a grid of 1 / steps.
    """

    title: str
    units: dict[str, float]
    example: str
    measure: Callable[[Backbone], float]
    steps: int = 1000


def longest_bytes(backbone: Backbone) -> int:
    """Size of the file of `backbone` with the longest record that other channels and what follows the cut may give it.

    After the cut a sparse phase and recoveries, each counted once, are recorded with their steps, and of several cuts
    the last may keep channels whose numbers are longer: the file comes out up to a few kilobytes smaller.
    """
    pruning = backbone.spec.pruning
    if pruning is None:
        return artifact_bytes(backbone)
    dense = dense_parent(backbone.spec).trunk.state_dict()
    widths = {layer: dense[f"{layer}.weight"].shape[0] for layer in pruning.kept}
    longest = replace(
        pruning,
        ratio=0.010000000000000009,  # as long as floats in [0, 1) get, but for tiny ones
        recover="+".join(["reinit", *RECOVERIES]),
        recover_steps=10**9,
        sparse_steps=10**9,
        # The last channels of the parent have the longest numbers.
        kept={layer: list(range(widths[layer]))[-len(own) :] for layer, own in pruning.kept.items()},
    )
    widest = max(widths.values(), default=0)
    stages = {stage: [max(widest, *own)] * len(own) for stage, own in pruning.stage_channels.items()}
    twin = copy.copy(backbone)  # its tensors are those of `backbone`, its spec is its own
    twin.spec = replace(backbone.spec, pruning=replace(longest, stage_channels=stages))
    return artifact_bytes(twin)


QUANTITIES = {
    "params": Quantity("parameters up to the last tap", _COUNTS, "700k or 25%", count_parameters),
    "macs": Quantity(
        "MACs up to the last tap", _COUNTS, "400M or 25%", lambda backbone: count_macs(backbone, backbone.spec.size)
    ),
    "size": Quantity("bytes of the file", _BYTES, "1MB, 900KiB or 25%", longest_bytes),
    # Measured, so a finer grid would follow the noise.
    "latency": Quantity(
        "milliseconds for one image", _MILLISECONDS, "5ms or 25%", lambda backbone: measure_latency(backbone), steps=100
    ),
}


@dataclass(frozen=True)
class Target:
    """An upper bound. Parameters and MACs are those of the part that the detector runs, `Cost.*_used`.

    Attributes:
        kind: a key of `QUANTITIES`.
        limit: in parameters, MACs, bytes or milliseconds; with `share`, a share in (0, 1) of what the
            dense parent has (for a backbone that was slimmed before, still of the dense one).
    """

    kind: str
    limit: float
    share: bool = False

    @classmethod
    def parse(cls, kind: str, text: str) -> Target:
        """A target as a user types it.

        >>> Target.parse("params", "3M"), Target.parse("latency", "5 ms")
        (Target(kind='params', limit=3000000.0, share=False), Target(kind='latency', limit=5.0, share=False))
        >>> Target.parse("macs", "25%")
        Target(kind='macs', limit=0.25, share=True)

        Units: k, M, G or none for counts; B, kB, MB, GB (powers of 1000), KiB, MiB, GiB; us, ms, s; or %.

        Raises:
            CompressError: an unknown kind, no number above 0, an unknown unit, or a share that is not below 100 %.
        """
        if kind not in QUANTITIES:
            raise unknown("target", kind, QUANTITIES, "a target is one of these")
        quantity = QUANTITIES[kind]
        found = re.fullmatch(r"\s*([0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*([A-Za-z%]*)\s*", text)
        number, unit = (float(found[1]), found[2]) if found else (math.nan, "")
        if not (0 < number < math.inf) or unit not in {*quantity.units, "%"}:
            raise CompressError(f"target {kind} {text!r} is not understood: write it like {quantity.example}")
        if unit == "%":
            if number >= 100:
                raise CompressError(f"target {kind} {text} is no reduction: name a share below 100%")
            return cls(kind, number / 100, share=True)
        return cls(kind, number * quantity.units[unit])

    def __str__(self) -> str:
        return f"{self.kind} {self.limit:.4%}" if self.share else f"{self.kind} {_told(self.kind, self.limit)}"


def find_ratio(ranking: Ranking, target: Target) -> tuple[float, Backbone]:
    """The smallest ratio, on the grid of the quantity, whose cut meets `target`, and that cut.

    Costs fall with the ratio about as (1 - ratio)^p, so each try tells where to try next: three to ten cuts. The
    answer meets the target and the next smaller ratio does not; where rounding makes costs rise a little between
    neighbours, an even smaller one might. Latency is measured here and now, the median of 30 single images on as
    many threads as torch has, on a grid of 0.01. Layers run fastest at multiples of eight channels, so give a
    target in latency a rule with round_to=8; nothing is rounded here that the ranking's rule does not round.
    The size of the file is measured with room for the record of a sparse phase and of recoveries, so that it still
    holds after them (see `longest_bytes`).

    Raises:
        CompressError: the backbone meets the target uncut, or no cut does; the message names the nearest that can.
    """
    quantity = QUANTITIES[target.kind]
    limit, whole = target.limit, quantity.measure(ranking.backbone)
    if target.share:
        spec = ranking.backbone.spec
        limit *= whole if spec.pruning is None else quantity.measure(dense_parent(spec))
    if whole <= limit:
        raise CompressError(
            f"target {target} is already met: this {ranking.backbone.spec.arch} has {_told(target.kind, whole)} "
            f"({quantity.title}); name less"
        )
    cuts = _Cuts(ranking, quantity)
    last = _last_step(ranking, quantity.steps)
    low, high = 0, last + 1  # the largest step known to fail, the smallest known to meet (or beyond the last)
    power, tries, stride = 2.0, 0, 1
    while high - low > 1:
        tries += 1
        if tries <= _GUESSES:
            step = math.ceil(quantity.steps * (1 - (limit / whole) ** (1 / power)))
        elif low > 0 and high <= last:
            step = (low + high) // 2
        else:  # all tries fell on one side of the answer, which is near
            step = low + stride if high > last else high - stride
            stride *= 2
        step = min(max(step, low + 1), high - 1)
        value = cuts.value(step)
        low, high = (low, step) if value <= limit else (step, high)
        if value < whole:
            power = math.log(value / whole) / math.log(1 - step / quantity.steps)
    if high > last:
        cures = ["allow that much", *ranking.rule.cures, "choose a smaller architecture"]
        raise CompressError(
            f"target {target} cannot be met: ratio {last / quantity.steps}, the largest that its limits allow, still "
            f"has {_told(target.kind, cuts.value(last))} ({quantity.title}); {', '.join(cures[:-1])}, or {cures[-1]}"
        )
    return high / quantity.steps, cuts.backbone(high)


class _Cuts:
    """The cuts of a ranking, each made and measured once."""

    def __init__(self, ranking: Ranking, quantity: Quantity) -> None:
        self._ranking, self._quantity = ranking, quantity
        self._values: dict[tuple[int, ...], float] = {}
        self._latest: tuple[int, Backbone] | None = None  # one is kept: ten of a large network would fill the memory

    def value(self, step: int) -> float:
        """The quantity at ratio step / steps; ratios that remove equally many channels everywhere have one value."""
        counts = tuple(len(gone) for gone in self._ranking.removals(step / self._quantity.steps).values())
        if counts not in self._values:
            self._values[counts] = self._quantity.measure(self.backbone(step))
        return self._values[counts]

    def backbone(self, step: int) -> Backbone:
        if self._latest is None or self._latest[0] != step:
            self._latest = step, self._ranking.cut(step / self._quantity.steps)
        return self._latest[1]


def _last_step(ranking: Ranking, steps: int) -> int:
    """The largest step whose ratio empties no layer: found without a cut."""
    low, high = 0, steps
    while high - low > 1:
        middle = (low + high) // 2
        try:
            ranking.removals(middle / steps)
            low = middle
        except CompressError:
            high = middle
    return low


def _told(kind: str, value: float) -> str:
    """A value in the largest unit that it fills; rounded up, so that what is named can be met."""
    units = QUANTITIES[kind].units
    powers = {name: worth for name, worth in units.items() if not name.endswith("iB")}
    name, worth = max(
        ((name, worth) for name, worth in powers.items() if worth <= value), key=lambda unit: unit[1], default=("", 0.0)
    )
    if not worth:
        name, worth = min(powers.items(), key=lambda unit: unit[1])
    return f"{math.ceil(value / worth * 1000) / 1000:g}{name}"
