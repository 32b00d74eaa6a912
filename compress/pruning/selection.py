"""From scores to the channels that go: how many, ranked over what, and which layers are left whole."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn

from compress.errors import CompressError, RatioError, some_of, unknown
from compress.graph import ChannelGroup

SCOPES = {
    "local": "every group loses the same share of its channels",
    "stage": "stage maps stay whole, the inside of blocks loses more: as many weights go as under local",
    "global": "all channels of the network are ranked together",
    "isomorphic": "channels are ranked together within groups of like structure (Fang et al. 2024)",
}

FIXED = ("local", "stage")  # how many channels a group loses follows from the ratio alone, not from a ranking

# 10 * (1 - 0.9) is 0.99... in floating point, and one channel should stay.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rule:
    """What a cut must respect, whatever its ratio.

    Attributes:
        scope: a key of `SCOPES`.
        round_to: kept channels of a group are rounded to the nearest multiple of it, and to one at least.
            A group narrower than that stays whole.
        max_layer_ratio: no group loses a larger share, whatever `round_to` says. None: no limit under the
            scopes of `FIXED`; under the others every group keeps at least a quarter of the average share,
            since a ranking over many layers may else starve one of them.
        ignore: shell patterns; groups that hold outputs of a layer so named are left whole.
        protect_taps: channels that come out in a tapped map all stay.
    """

    scope: str = "local"
    round_to: int = 1
    max_layer_ratio: float | None = None
    ignore: tuple[str, ...] = ()
    protect_taps: bool = False

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise unknown("scope", self.scope, SCOPES, "choose one of these")
        if isinstance(self.ignore, str):
            raise CompressError(f"ignore {self.ignore!r} is a text, not a tuple of patterns: give ({self.ignore!r},)")
        if self.round_to < 1:
            raise CompressError(f"round_to {self.round_to} is below 1: 8 keeps channels in multiples of eight")
        if self.max_layer_ratio is not None and not 0 < self.max_layer_ratio < 1:
            raise CompressError(
                f"max_layer_ratio {self.max_layer_ratio} is outside (0, 1): 0.9 leaves every layer a tenth at least"
            )

    def check(self, ratio: float) -> None:
        """Raises CompressError for a ratio outside [0, 1), or where it takes more than `max_layer_ratio` of a group."""
        check_ratio(ratio)
        if self.max_layer_ratio is not None and self.share(ratio) > self.max_layer_ratio + _ROUNDING:
            largest = math.floor((1 - (1 - self.max_layer_ratio) ** (1 / self.power)) * 1000 + _ROUNDING) / 1000
            stage = f" of each group under scope stage, which takes {self.share(ratio):.4g}" if self.power > 1 else ""
            raise RatioError(
                f"ratio {ratio} is above max_layer_ratio {self.max_layer_ratio}{stage}: lower it to {largest}, or "
                "raise the limit"
            )

    @property
    def cures(self) -> list[str]:
        """What would let a cut go further, for a message: one for each limit that holds."""
        unlimited = self.max_layer_ratio is None and self.scope in FIXED
        # The narrowest layer stops a cut that would leave it nothing: other layers do not count then.
        narrowest = unlimited and self.round_to == 1
        limits = {
            "give max_layer_ratio 0.99, under which every layer keeps a channel": narrowest,
            "raise max_layer_ratio": self.max_layer_ratio is not None,
            "lower round_to" + (" and give max_layer_ratio 0.99" if unlimited else ""): self.round_to > 1,
            "ignore fewer layers": bool(self.ignore) and not narrowest,
            "let tapped channels go": self.protect_taps,
            "take another scope, since stage leaves the stage maps whole": self.scope == "stage",
        }
        return [cure for cure, holds in limits.items() if holds]

    def limit(self, ratio: float) -> float:
        """The largest share that any one group may lose when `ratio` goes in all."""
        if self.max_layer_ratio is not None:
            return self.max_layer_ratio
        return 1.0 if self.scope in FIXED else 1 - (1 - ratio) / 4

    @property
    def power(self) -> int:
        """Under a scope of `FIXED`, every group keeps (1 - ratio)^power of its channels.

        Under `stage` it is 2: inside a residual block each weight joins a channel of a stage map with one between the
        convolutions, so that (1 - ratio)^2 of the weights stay, as under `local`.
        """
        return 2 if self.scope == "stage" else 1

    def share(self, ratio: float) -> float:
        """The share that every group loses when `ratio` goes in all, under a scope of `FIXED`."""
        return float(1 - (1 - ratio) ** self.power)


def check_ratio(ratio: float) -> None:
    """Raises CompressError for a ratio that is no number or is outside [0, 1)."""
    if not isinstance(ratio, Real):
        raise CompressError(f"ratio {ratio!r} is no number: give one in [0, 1), such as 0.5")
    if not 0 <= ratio < 1:
        raise CompressError(f"ratio {ratio} is outside [0, 1): 0.5 removes half of the channels of every layer")


def prunable(groups: Sequence[ChannelGroup], rule: Rule, taps: Iterable[str]) -> list[ChannelGroup]:
    """The groups that `rule` lets be cut.

    Raises:
        CompressError: a pattern matches no layer, or nothing is left to prune.
    """
    tapped = set(taps)
    names = [[member.name for member in group.members if member.outputs] for group in groups]
    for pattern in rule.ignore:
        if not any(fnmatch.filter(own, pattern) for own in names):
            layers = some_of(sorted(name for own in names for name in own))
            raise CompressError(f"ignore {pattern!r} matches no prunable layer: they are {layers}")
    left = [
        group
        for group, own in zip(groups, names, strict=True)
        if not any(fnmatch.filter(own, pattern) for pattern in rule.ignore)
        and not (rule.protect_taps and any(member.stage in tapped for member in group.maps))
        and not (rule.scope == "stage" and group.maps)
    ]
    if groups and not left:
        raise CompressError("ignore, protect_taps and scope leave no layer to prune: drop one of them")
    return left


def select(
    groups: Sequence[ChannelGroup],
    scores: Sequence[Tensor],
    ratio: float,
    rule: Rule,
    *,
    full: Mapping[str, int] | None = None,
) -> list[list[int]]:
    """The channels that go, ascending, for each group.

    Args:
        groups, scores: alike in number; scores are (group.size,).
        ratio: share of channels to remove, in [0, 1).
        rule: see `Rule`.
        full: by root, the sizes that `ratio` is a share of, where groups were cut before; by default their own.

    Raises:
        CompressError: a ratio outside the range, above the rule's `max_layer_ratio`, or one that empties a
            group; or scores that are not numbers.
    """
    rule.check(ratio)
    _check_scores(groups, scores)
    limit = rule.limit(ratio)
    pools = [
        _Pool(group, score, (full or {}).get(group.root, group.size), limit)
        for group, score in zip(groups, scores, strict=True)
    ]
    if rule.scope in FIXED:
        _check_no_group_empties(pools, ratio, rule)
        kept = [max(pool.least, pool.kept(rule.share(ratio))) for pool in pools]
    else:
        kept = [0] * len(pools)
        for alike in _ranked_together(groups, rule.scope):
            counts = _kept_together([pools[place] for place in alike], ratio)
            for place, count in zip(alike, counts, strict=True):
                kept[place] = count
    removals = []
    for pool, count in zip(pools, kept, strict=True):
        rounded = pool.rounded(count, rule.round_to)
        removals.append(lowest(pool.scores, pool.size - rounded, pool.group.blocks))
    return removals


def lowest(scores: Tensor, count: int, blocks: int = 1) -> list[int]:
    """Indices of the `count` smallest scores, ties by index, ascending.

    With `blocks` > 1 the scores are averaged over that many equal consecutive blocks, and the same
    positions are taken from each, so that the blocks stay of one size; `count` is then per block.
    """
    per_block = scores.view(blocks, -1).mean(dim=0)
    order = torch.argsort(per_block, stable=True)[:count]
    size = len(per_block)
    return sorted(int(index) + block * size for index in order for block in range(blocks))


class _Pool:
    """A group as a pool of positions: a position is one channel of every block. `least` of them stay."""

    def __init__(self, group: ChannelGroup, scores: Tensor, full: int, limit: float) -> None:
        self.group, self.scores = group, scores
        self.size, self.full = group.size // group.blocks, full // group.blocks
        self.per_position = scores.view(group.blocks, -1).mean(dim=0)
        # Rounded up: one channel fewer would be a share above the limit.
        self.least = min(self.size, max(1, math.ceil(self.full * (1 - limit) - _ROUNDING)))

    def kept(self, ratio: float) -> int:
        return min(self.size, math.floor(self.full * (1 - ratio) + _ROUNDING))

    def rounded(self, kept: int, multiple: int) -> int:
        """The multiple (of all blocks together) nearest to `kept` that is not below `least`."""
        step = multiple // math.gcd(multiple, self.group.blocks)
        nearest = max(round(kept / step), math.ceil(self.least / step)) * step
        return min(self.size, nearest)


def _kept_together(pools: Sequence[_Pool], ratio: float) -> list[int]:
    """Positions that each pool keeps when the lowest scores of all go, none beyond its limit."""
    blocks = [pool.group.blocks for pool in pools]
    total = sum(pool.full * weight for pool, weight in zip(pools, blocks, strict=True))
    here = sum(pool.size * weight for pool, weight in zip(pools, blocks, strict=True))
    budget = here - math.floor(total * (1 - ratio) + _ROUNDING)
    kept = [pool.size for pool in pools]
    owner = torch.cat([torch.full((pool.size,), place) for place, pool in enumerate(pools)])
    order = torch.argsort(torch.cat([pool.per_position for pool in pools]), stable=True)
    for place in owner[order].tolist():
        if budget <= 0:
            break
        if kept[place] > pools[place].least:
            kept[place] -= 1
            budget -= blocks[place]
    return kept


def _ranked_together(groups: Sequence[ChannelGroup], scope: str) -> list[list[int]]:
    """Places of the groups that share one ranking."""
    alike: dict[object, list[int]] = {}
    for place, group in enumerate(groups):
        alike.setdefault(_structure(group) if scope == "isomorphic" else None, []).append(place)
    return list(alike.values())


def _structure(group: ChannelGroup) -> tuple[object, ...]:
    """Equal for groups whose layers are of the same kinds and are tied in the same way, whatever their widths."""
    kinds = []
    for member in group.members:
        layer = member.layer
        shape = (layer.kernel_size, layer.stride, layer.groups > 1) if isinstance(layer, nn.Conv2d) else ()
        kinds.append((type(layer).__name__, member.outputs, *shape))
    return tuple(sorted(kinds, key=repr))


def _check_scores(groups: Sequence[ChannelGroup], scores: Sequence[Tensor]) -> None:
    for group, score in zip(groups, scores, strict=True):
        if score.isnan().any():
            raise CompressError(
                f"{int(score.isnan().sum())} of the {group.size} scores of {group.root} are NaN, which cannot be "
                "ranked: is the backbone damaged, or did its training diverge?"
            )


def _check_no_group_empties(pools: Sequence[_Pool], ratio: float, rule: Rule) -> None:
    if not pools or rule.round_to > 1 or rule.max_layer_ratio is not None:
        return
    narrowest = min(pools, key=lambda pool: pool.full)
    if narrowest.kept(rule.share(ratio)) < 1:
        largest = math.floor((1 - narrowest.full ** (-1 / rule.power)) * 1000) / 1000
        raise RatioError(
            f"ratio {ratio} would leave none of the {narrowest.full} channels of {narrowest.group.root}: "
            f"the largest ratio that leaves one is {largest}; to go beyond it, ignore that layer, or give round_to or "
            "a larger max_layer_ratio, under which every layer keeps one"
        )
