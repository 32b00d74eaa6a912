"""The verb prune: sparse phases before the cut, several cuts, targets, and what is refused before any work."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import same
from torch import Tensor, nn

import compress
from compress import METHODS, Backbone, CompressError
from compress.graph import ChannelGroup
from compress.importance import Penalty
from compress.pruning import Rule, Target, check_request, rank
from compress.pruning import procedure as verb
from compress.pruning.targets import QUANTITIES
from compress.recovery.record import record_of as record

SPARSE = sorted(name for name, method in METHODS.items() if method.penalty)


@pytest.fixture(scope="module")
def photographs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(20, 3, 6, 6, generator=generator)
    return list(nn.functional.interpolate(coarse, (64, 64), mode="bilinear").mul(255).byte())


@pytest.fixture(scope="module")
def labelled(photographs: list[Tensor]) -> list[tuple[Tensor, int]]:
    return [(image if index % 2 else image // 8, index % 2) for index, image in enumerate(photographs)]


@pytest.fixture(scope="module")
def dense() -> Backbone:
    return compress.create_backbone("mobilenet_v3_small", weights="none")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ranks, trains or cuts fails the test."""

    def work(*arguments: object, **options: object) -> None:
        raise AssertionError("work was done before the refusal")

    for name in ("rank", "train_sparse", "find_ratio", "prune_in_steps"):
        monkeypatch.setattr(verb, name, work)


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each sparse phase, none of which trains anything."""
    seen: list[dict[str, Any]] = []

    def fake(
        backbone: Backbone, groups: Sequence[ChannelGroup], penalty: object, images: object, **told: Any
    ) -> Backbone:
        seen.append({"backbone": backbone, "images": images, **told})
        return backbone

    monkeypatch.setattr(verb, "train_sparse", fake)
    return seen


def shapes(backbone: Backbone) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in backbone.state_dict().items()}


@pytest.mark.usefixtures("small_recipes")
@pytest.mark.parametrize("method", SPARSE)
def test_a_sparse_phase_is_run_and_recorded(method: str, dense: Backbone, photographs: list[Tensor]) -> None:
    losses: list[float] = []
    slim = compress.prune(
        dense, ratio=0.5, method=method, images=photographs, sparse_steps=2, report=lambda *told: losses.append(told[1])
    )
    assert len(losses) == 2
    assert (record(slim).method, record(slim).sparse_steps, record(slim).recover) == (method, 2, "none")
    once = compress.prune(dense, ratio=0.5, method=method, one_shot=True)
    assert record(once).sparse_steps == 0
    assert shapes(slim) == shapes(once)
    assert not same(slim, once)


@pytest.mark.usefixtures("small_recipes")
@pytest.mark.parametrize(
    ("method", "mode"),
    [
        ("group_norm", torch.no_grad),
        ("group_norm", torch.inference_mode),
        ("lcp", torch.inference_mode),
        ("taylor", torch.inference_mode),
    ],
)
def test_the_callers_mode_does_not_matter(
    method: str, mode: type[torch.no_grad], dense: Backbone, photographs: list[Tensor]
) -> None:
    """The same weights are left, and can be trained."""
    options: dict[str, Any] = {"ratio": 0.5, "method": method, "images": photographs[:8], "sparse_steps": 1}
    with mode():
        slim = compress.prune(compress.create_backbone("mobilenet_v3_small", weights="none"), **options)
    assert same(slim, compress.prune(dense, **options))
    slim(torch.zeros(1, 3, 224, 224))[-1].sum().backward()
    assert all(parameter.grad is not None for parameter in slim.parameters())


def test_a_method_without_a_sparse_phase_records_none(dense: Backbone) -> None:
    assert record(compress.prune(dense, ratio=0.5)).sparse_steps is None


def test_sparse_steps_of_several_cuts_add_up(dense: Backbone, photographs: list[Tensor], phases: list[Any]) -> None:
    first = compress.prune(dense, ratio=0.2, method="growing_reg", images=photographs, sparse_steps=7)
    again = compress.prune(first, ratio=0.2, method="group_norm", images=photographs, sparse_steps=4, cuts=2)
    later = compress.prune(again, ratio=0.2)
    assert [record(slim).sparse_steps for slim in (first, again, later)] == [7, 15, 15]
    assert record(later).method == "growing_reg+group_norm+magnitude"
    assert record(later).ratio == pytest.approx(1 - 0.8**3)


def test_with_labels_the_sparse_phase_learns_the_classes(dense: Backbone, labelled: list[tuple[Tensor, int]]) -> None:
    """The first loss is that of guessing between two classes: ln 2, or so."""
    losses: list[float] = []
    slim = compress.prune(
        dense,
        ratio=0.5,
        method="growing_reg",
        images=labelled,
        labelled=True,
        sparse_steps=1,
        report=lambda *told: losses.append(told[1]),
    )
    assert record(slim).sparse_steps == 1
    assert losses == [pytest.approx(0.693, abs=0.2)]


@pytest.mark.usefixtures("small_recipes")
def test_growing_regularization_presses_on_the_channels_that_go(
    dense: Backbone, photographs: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short the phase is."""
    pressed: dict[str, list[int]] = {}
    own = METHODS["growing_reg"].penalty
    assert own is not None

    def watched(groups: Sequence[ChannelGroup], removals: Sequence[Sequence[int]]) -> Penalty:
        pressed.update({group.root: list(gone) for group, gone in zip(groups, removals, strict=True)})
        return own(groups, removals)

    monkeypatch.setitem(METHODS, "growing_reg", dataclasses.replace(METHODS["growing_reg"], penalty=watched))
    slim = compress.prune(dense, ratio=0.5, method="growing_reg", images=photographs, sparse_steps=2)
    widths = {name: tensor.shape[:1] for name, tensor in dense.trunk.state_dict().items()}
    compared = 0
    for root, gone in pressed.items():
        if root in record(slim).kept:
            kept = record(slim).kept[root]
            assert sorted({*range(*widths[f"{root}.weight"])} - {*kept}) == gone
            compared += 1
    assert compared > 5


@pytest.mark.usefixtures("small_recipes")
def test_the_last_sparse_state_is_what_is_cut(dense: Backbone, photographs: list[Tensor]) -> None:
    """Channels that stay have the weights of the trained network, which are not those of the dense one."""
    slim = compress.prune(dense, ratio=0.0, method="batch_norm", images=photographs, sparse_steps=2)
    assert shapes(slim) == shapes(dense)
    assert not same(slim, dense)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_several_cuts_recover_in_between_and_end_where_one_would(dense: Backbone, scope: str) -> None:
    recovered: list[int] = []

    def recover(backbone: Backbone) -> Backbone:
        recovered.append(compress.cost_of(backbone).params_used)
        return backbone

    slim = compress.prune(dense, ratio=0.6, rule=Rule(scope), cuts=3, recover=recover)
    once = compress.prune(dense, ratio=0.6, rule=Rule(scope))
    assert len(recovered) == 2
    whole, end = (compress.cost_of(each).params_used for each in (dense, slim))
    assert whole > recovered[0] > recovered[1] > end
    assert record(slim).ratio == pytest.approx(0.6)
    if scope == "local":
        assert shapes(slim) == shapes(once)
    assert sum(map(len, record(slim).kept.values())) == pytest.approx(
        sum(map(len, record(once).kept.values())), rel=0.02
    )


def test_cuts_stay_at_the_limit_that_the_ratio_is_at(dense: Backbone) -> None:
    """1 - (1 - 0.3) is a little more than 0.3 in floating point, and was refused as above the limit."""
    slim = compress.prune(dense, ratio=0.3, rule=Rule(max_layer_ratio=0.3), cuts=2)
    assert shapes(slim) == shapes(compress.prune(dense, ratio=0.3, rule=Rule(max_layer_ratio=0.3)))


def test_a_ratio_that_the_last_cut_would_refuse_is_refused_before_the_first(
    dense: Backbone, photographs: list[Tensor], phases: list[Any]
) -> None:
    def recover(backbone: Backbone) -> Backbone:
        raise AssertionError("recovered before the refusal")

    for method, images in (("magnitude", None), ("growing_reg", photographs)):
        with pytest.raises(CompressError, match="largest ratio that leaves one"):
            compress.prune(dense, ratio=0.95, method=method, images=images, cuts=3, recover=recover)
    assert not phases


def test_what_was_recovered_before_a_cut_does_not_count_after_it(dense: Backbone, photographs: list[Tensor]) -> None:
    once = compress.recalibrate(compress.prune(dense, ratio=0.3), photographs)
    assert record(once).recover == "bn"
    assert record(compress.prune(once, ratio=0.3)).recover == "none"
    fresh = compress.recalibrate(compress.reinitialise(once), photographs)
    assert record(compress.prune(fresh, ratio=0.3)).recover == "reinit"


@pytest.mark.parametrize(
    ("kind", "text", "options"),
    [
        ("macs", "30%", {}),
        ("macs", "30%", {"rule": Rule("global")}),
        ("params", "40%", {"cuts": 2}),
        ("params", "40%", {"method": "growing_reg"}),
    ],
)
def test_targets_are_met(
    kind: str, text: str, options: dict[str, Any], dense: Backbone, photographs: list[Tensor], phases: list[Any]
) -> None:
    target = Target.parse(kind, text)
    images = photographs if "method" in options else None
    slim = compress.prune(dense, target=target, images=images, **options)
    measure = QUANTITIES[kind].measure
    assert 0.85 * target.limit < measure(slim) / measure(dense) <= target.limit
    assert record(slim).sparse_steps == (verb.SPARSE_STEPS if images else None)
    assert len(phases) == (1 if images else 0)


def test_each_sparse_phase_has_its_checkpoint(
    dense: Backbone, photographs: list[Tensor], phases: list[dict[str, Any]], tmp_path: Path
) -> None:
    place = tmp_path / "slim.sparse.state"
    prune: Callable[..., Backbone] = compress.prune
    for cuts in (1, 3):
        prune(dense, ratio=0.5, method="group_norm", images=photographs, cuts=cuts, checkpoint=place)
    assert [told["checkpoint"].name for told in phases] == [place.name, *(f"{place.name}{cut}" for cut in (1, 2, 3))]
    assert [told["steps"] for told in phases] == [verb.SPARSE_STEPS] * 4
    assert len({told["name"] for told in phases[1:]}) == 3  # so that one cut's state is not taken for another's


@pytest.mark.usefixtures("small_recipes")
def test_killed_in_the_sparse_phase_it_goes_on_to_the_same_weights(
    dense: Backbone, photographs: list[Tensor], tmp_path: Path
) -> None:
    done: list[int] = []

    def killed(step: int, loss: float, held_out: float | None) -> None:
        if step == 3:
            raise KeyboardInterrupt

    def prune(**options: Any) -> Backbone:
        return compress.prune(dense, ratio=0.5, method="growing_reg", images=photographs, sparse_steps=5, **options)

    unbroken = prune()
    with pytest.raises(KeyboardInterrupt):
        prune(checkpoint=tmp_path / "state", report=killed)
    continued = prune(checkpoint=tmp_path / "state", report=lambda *told: done.append(told[0]))
    assert done == [3, 4, 5]
    assert same(continued, unbroken)
    assert record(continued) == record(unbroken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a ratio or a target says how much"),
        ({"ratio": 0.5, "target": Target("params", 1e5)}, "give one of them"),
        ({"ratio": "0.5"}, r"ratio '0\.5' is no number: give one in \[0, 1\)"),
        ({"target": "50%"}, r"target '50%' is no Target: make one, such as Target\.parse\(\"params\", \"50%\"\)"),
        ({"ratio": 1.0}, r"ratio 1\.0 is outside \[0, 1\)"),
        ({"ratio": 0.5, "method": "magnitud"}, "did you mean magnitude"),
        ({"ratio": 0.5, "cuts": 0}, "0 cuts prune nothing"),
        (
            {"target": Target("params", 1e5), "cuts": 2, "rule": Rule("global")},
            "2 cuts with scope global may miss target",
        ),
        ({"target": Target("params", 1e5), "cuts": 2, "method": "layer_adaptive"}, "scope global may miss target"),
        ({"ratio": 0.5, "one_shot": True}, "method magnitude has no sparse phase that one-shot could leave out"),
        ({"ratio": 0.5, "labelled": True}, "method magnitude trains no sparse phase here that could learn from labels"),
        ({"ratio": 0.5, "method": "bn", "one_shot": True, "labelled": True}, "leave them out"),
        ({"ratio": 0.5, "method": "bn", "one_shot": True, "sparse_steps": 0}, "0 sparse steps train nothing"),
        ({"ratio": 0.5, "method": "lcp"}, "method lcp reads activations, for which it needs images"),
        ({"ratio": 0.5, "method": "lcp", "images": [torch.zeros(3, 64, 64)] * 3}, "3 images are too few for lcp"),
        ({"ratio": 0.5, "rule": Rule(max_layer_ratio=0.3)}, r"ratio 0\.5 is above max_layer_ratio 0\.3"),
        ({"ratio": 0.5, "regions": [None]}, "regions restrict statistics of activations"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_contradictions_are_refused_before_any_work(dense: Backbone, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CompressError, match=message):
        compress.prune(dense, **options)


@pytest.mark.parametrize("method", SPARSE)
def test_a_sparse_phase_without_images_is_refused_unless_it_is_left_out(method: str) -> None:
    with pytest.raises(CompressError, match=f"method {method} trains the network .* or ask for one-shot"):
        check_request(ratio=0.5, method=method)
    check_request(ratio=0.5, method=method, one_shot=True)


def test_the_one_shot_cut_is_by_the_scores_of_the_network_as_it_is(dense: Backbone) -> None:
    slim = compress.prune(dense, ratio=0.5, method="group_norm", one_shot=True)
    assert same(slim, rank(dense, method="group_norm").cut(0.5))


@pytest.mark.parametrize("method", ["lcp", "taylor"])
def test_a_ratio_that_empties_a_layer_is_refused_before_images_are_read(
    method: str, dense: Backbone, photographs: list[Tensor]
) -> None:
    def track(steps: object, title: str, count: int) -> Any:
        raise AssertionError(f"{title} were gathered")

    with pytest.raises(CompressError, match=r"ratio 0\.99 would leave none of the 8 channels"):
        compress.prune(dense, ratio=0.99, method=method, images=photographs, track=track)


@pytest.mark.parametrize("method", ["magnitude", "lcp", "taylor"])
def test_a_network_in_half_precision_is_cut_in_float32(method: str, dense: Backbone, photographs: list[Tensor]) -> None:
    half = copy.deepcopy(dense).half()
    images = None if method == "magnitude" else photographs
    slim = compress.prune(half, ratio=0.5, method=method, images=images)
    assert same(slim, compress.prune(copy.deepcopy(half).float(), ratio=0.5, method=method, images=images))
    assert next(slim.parameters()).dtype == torch.float32
    assert next(half.parameters()).dtype == torch.float16
