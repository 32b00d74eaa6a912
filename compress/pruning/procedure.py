"""The verb `prune`: rank the channels, train towards sparsity where the method wants it, cut, perhaps many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress.backbone import Backbone
from compress.errors import CompressError
from compress.importance.gathering import check_images
from compress.importance.regions import Regions
from compress.progress import Track, quiet
from compress.pruning.iteration import prune_in_steps
from compress.pruning.ranking import Ranking, find_method, rank
from compress.pruning.selection import FIXED, Rule
from compress.pruning.sparse_training import train_sparse
from compress.pruning.targets import Target, find_ratio
from compress.third_party import as_backbone
from compress.training import Report

SPARSE_STEPS = 500


def prune(
    backbone: Backbone | nn.Module,
    *,
    ratio: float | None = None,
    target: Target | None = None,
    method: str = "magnitude",
    rule: Rule | None = None,
    images: Sequence[Any] | None = None,
    labelled: bool = False,
    regions: Regions | None = None,
    one_shot: bool = False,
    sparse_steps: int = SPARSE_STEPS,
    cuts: int = 1,
    recover: Callable[[Backbone], Backbone] | None = None,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Path | None = None,
    track: Track = quiet,
    report: Report | None = None,
    example_input: Tensor | None = None,
    taps: Sequence[str] | None = None,
) -> Backbone:
    """A new backbone in float32 with a share of the channels removed; the given one is untouched.

    The whole classification network is slimmed by the same rule, so that its size can be compared with
    the literature, but only layers up to the last tap are scored and kept.

    Args:
        backbone: dense or already slimmed; ratios multiply. Or any other CNN, which `as_backbone` makes one of.
        ratio: share of channels to remove, in [0, 1).
        target: instead of a ratio, what the slim backbone may cost (see `compress.pruning.targets`).
        method: a name in `METHODS`.
        rule: scope and limits of the cut; by default the method's own scope, and no limits.
        images: uint8 RGB (3, H, W) of any sizes, for a method that reads activations or gradients or has a
            sparse phase; pairs of such an image and its class if `labelled`.
        labelled: train the sparse phase by cross-entropy on the classes instead of by distillation.
        regions: where the objects are in each image (see `compress.importance.regions`), for `lcp`.
        one_shot: leave out the sparse phase of `batch_norm`, `growing_reg` or `group_norm`. The record says so.
        sparse_steps: steps of that phase, before each cut.
        cuts: over how many cuts the ratio is spread (see `compress.pruning.iteration`).
        recover: called on the backbone between two cuts, not after the last.
        seed, device, track, report: see `compress.training.Run`.
        checkpoint: of the sparse phase; with several cuts each has its own, numbered. A finished one serves every
            ratio where the method `shares_phase`.
        example_input, taps: for a CNN that is no backbone yet, as `compress.as_backbone` takes them.

    Raises:
        CompressError: what `check_request` refuses, a ratio that empties a layer, or a target that cannot be met.
    """
    check_request(
        ratio=ratio,
        target=target,
        method=method,
        rule=rule,
        images=images,
        labelled=labelled,
        regions=regions,
        one_shot=one_shot,
        sparse_steps=sparse_steps,
        cuts=cuts,
    )
    backbone = _adopted(backbone, example_input, taps)
    criterion = find_method(method)
    penalty = None if one_shot else criterion.penalty
    trained = 0

    def ranked(network: Backbone, coming: float | None = None) -> Ranking:
        plain = None if labelled else images
        return rank(
            network, method=method, rule=rule, seed=seed, images=plain, regions=regions, ratio=coming, track=track
        )

    def made_sparse(network: Backbone, now: float, full: Mapping[str, int]) -> Ranking:
        nonlocal trained
        # A ratio that empties a layer is refused before images are read or anything is trained.
        ranking = ranked(network, None if full else share)
        if penalty is None or images is None:
            return ranking
        trained += 1
        chosen = ranking.removals(now, full=full or None)  # refuses a ratio that empties a layer
        removals = [chosen[group.root] if criterion.ranks_first else [] for group in ranking.groups]
        place = checkpoint.with_name(f"{checkpoint.name}{trained}") if checkpoint and cuts > 1 else checkpoint
        sparse = train_sparse(
            network,
            ranking.groups,
            lambda groups: penalty(groups, removals),
            images,
            name=f"{ranking.method} {'' if criterion.shares_phase(cuts) else f'{now} '}{ranking.rule}",
            steps=sparse_steps,
            labelled=labelled,
            seed=seed,
            device=device,
            checkpoint=place,
            track=track,
            report=report,
        )
        return replace(ranking, backbone=sparse) if criterion.ranks_first else ranked(sparse)

    share, slim = find_ratio(ranked(backbone), target) if target is not None else (ratio or 0.0, None)
    if cuts > 1:
        slim = prune_in_steps(backbone, ratio=share, steps=cuts, rank=made_sparse, recover=recover or (lambda cut: cut))
    elif penalty is not None or slim is None:
        ranking = made_sparse(backbone, share, {})
        slim = ranking.cut(share) if target is None else find_ratio(ranking, target)[1]
    if slim.spec.pruning is not None and criterion.penalty is not None:
        done = (slim.spec.pruning.sparse_steps or 0) + trained * sparse_steps  # cuts before this call had theirs
        slim.spec = replace(slim.spec, pruning=replace(slim.spec.pruning, sparse_steps=done))
    return slim


def _adopted(network: Backbone | nn.Module, example_input: Tensor | None, taps: Sequence[str] | None) -> Backbone:
    if isinstance(network, Backbone):
        if example_input is not None or taps is not None:
            raise CompressError("example_input and taps are for a network that is no backbone yet: leave them out")
        return network
    if example_input is None:
        raise CompressError(
            f"a {type(network).__name__} is no backbone yet: give example_input, a batch of its images (N, 3, S, S)"
        )
    return as_backbone(network, example_input=example_input, taps=taps)


def check_request(
    *,
    ratio: float | None,
    target: Target | None = None,
    method: str,
    rule: Rule | None = None,
    images: Sequence[Any] | None = None,
    labelled: bool = False,
    regions: Regions | None = None,
    one_shot: bool = False,
    sparse_steps: int = SPARSE_STEPS,
    cuts: int = 1,
) -> None:
    """Refuse, before any work, what no backbone can be pruned by.

    Raises:
        CompressError: not exactly one of ratio and target, one that is neither number nor target, a ratio outside
            [0, 1), an unknown method, images, labels or regions that do not go with it, or options that contradict
            each other.
    """
    chosen = find_method(method)
    scope = rule.scope if rule else chosen.scope
    if (ratio is None) == (target is None):
        raise CompressError("a ratio or a target says how much to prune: give one of them, e.g. ratio 0.5")
    if target is not None and not isinstance(target, Target):
        raise CompressError(f'target {target!r} is no Target: make one, such as Target.parse("params", "50%")')
    if ratio is not None:
        (rule or Rule()).check(ratio)
    if cuts < 1:
        raise CompressError(f"{cuts} cuts prune nothing: 1 is a single cut, 3 are a usual choice")
    if sparse_steps < 1:
        raise CompressError(f"{sparse_steps} sparse steps train nothing: give at least 1, or ask for one-shot")
    if cuts > 1 and target is not None and scope not in FIXED:
        raise CompressError(
            f"{cuts} cuts with scope {scope} may miss target {target}, since each is ranked anew: take scope local "
            "or stage, or one cut"
        )
    if one_shot and chosen.penalty is None:
        raise CompressError(f"method {method} has no sparse phase that one-shot could leave out: drop it")
    if labelled and (chosen.penalty is None or one_shot):
        raise CompressError(f"method {method} trains no sparse phase here that could learn from labels: leave them out")
    if chosen.penalty is not None and images is None and not one_shot:
        raise CompressError(
            f"method {method} trains the network towards sparsity before the cut, for which it needs images: "
            "give some, or ask for one-shot, which leaves that phase out"
        )
    check_images(method, chosen.reads, images, regions)
