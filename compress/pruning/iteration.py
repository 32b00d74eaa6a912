"""Iterative pruning: several small cuts with recovery between them, instead of one large one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from compress.backbone import UNPRUNED, Backbone
from compress.errors import CompressError
from compress.progress import Track, quiet
from compress.pruning.ranking import Ranking
from compress.pruning.selection import check_ratio


def prune_in_steps(
    backbone: Backbone,
    *,
    ratio: float,
    steps: int,
    rank: Callable[[Backbone, float, Mapping[str, int]], Ranking],
    recover: Callable[[Backbone], Backbone],
    track: Track = quiet,
) -> Backbone:
    """Cut `steps` times, so that the share r_k = 1 - (1 - ratio)^(k / steps) of the channels is gone after cut k.

    Each cut removes the same share of what is left and ranks the channels anew, on weights that have adapted to the
    cuts before it. Shares are of the sizes before the first cut, so that under scope local the last cut leaves as many
    channels in every group as one cut at `ratio` would, and under the others as many in all.

    Args:
        ratio: share of channels to remove in all, in [0, 1).
        steps: number of cuts, at least 1.
        rank: scores the channels of what is left for a cut at a share of the sizes before the first cut, by the root
            of their group (none before the first).
        recover: called between cuts, so `steps` - 1 times: recovery after the last cut is the caller's.

    Raises:
        CompressError: a ratio or steps out of range, or what `rank` and `recover` refuse.
    """
    check_ratio(ratio)
    ratio = float(ratio)
    if steps < 1:
        raise CompressError(f"{steps} cuts prune nothing: 1 is a single cut, 3 are a usual choice")
    before = (backbone.spec.pruning or UNPRUNED).ratio
    slim, full = backbone, dict[str, int]()
    for step in track(range(1, steps + 1), "cutting in steps", steps):
        share = 1 - (1 - ratio) ** (step / steps) if step < steps else ratio
        ranking = rank(slim if step == 1 else recover(slim), share, full)
        full = full or {group.root: group.size for group in (*ranking.groups, *ranking.tail)}
        slim = ranking.cut(share, full=full)
        if slim.spec.pruning is not None:  # the cut has recorded its share of `backbone`, which may be slim itself
            slim.spec = replace(slim.spec, pruning=replace(slim.spec.pruning, ratio=1 - (1 - before) * (1 - share)))
    return slim
