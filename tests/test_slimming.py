"""Slimmings: what each asks for, what it leaves behind when killed or diverged, and the parent it is taught by."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from networks import same
from safetensors.torch import save_file

import compress
from compress import RECOVERIES, Backbone, CompressError
from compress.pruning import Rule, Target
from compress.recovery.record import record_of as record
from pipelines import slimming as module
from pipelines.image_sets import open_images, open_labelled_images
from pipelines.models import parent_of
from pipelines.slimming import Images, Recovering, Slimming, forget, keeping_last_good, state_file

pytestmark = pytest.mark.usefixtures("small_recipes")

NOTHING = Images()
DISTILL, FINETUNE, STATISTICS = Recovering("distill", 3), Recovering("finetune", 3), Recovering("bn")


@pytest.fixture(scope="module")
def plain(photographs: Path) -> Images:
    return Images(open_images([photographs]))


@pytest.fixture(scope="module")
def classes(photographs: Path) -> Images:
    return Images(labelled=open_labelled_images(photographs))


@pytest.fixture(scope="module")
def both(plain: Images, classes: Images) -> Images:
    return Images(plain.unlabelled, classes.labelled)


@pytest.fixture(scope="module")
def dense() -> Backbone:
    return compress.create_backbone("mobilenet_v3_small", weights="none")


def slimming(method: str = "magnitude", recovering: Recovering | None = None, **options: object) -> Slimming:
    return Slimming(method=method, ratio=0.5, recovering=recovering, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "given", "message"),
    [
        (slimming("lcp"), "nothing", "method lcp reads activations"),
        (slimming("batch_norm"), "nothing", "or ask for one-shot"),
        (slimming(recovering=DISTILL), "nothing", "recovery distill needs images: give --images DIR"),
        (slimming(recovering=STATISTICS), "nothing", "recovery bn needs images"),
        (slimming(recovering=FINETUNE), "plain", "recovery finetune learns from classes: give --labelled"),
        (slimming(), "plain", "nothing in this request reads images .method magnitude, recovery none"),
        (slimming("bn", one_shot=True), "plain", "nothing in this request reads images"),
        (slimming(), "classes", "nothing in this request learns from classes"),
        (slimming(recovering=DISTILL), "classes", "nothing in this request learns from classes"),
        (slimming("lcp"), "both", "nothing in this request learns from classes"),
        (slimming(recovering=FINETUNE), "both", "nothing in this request reads images without classes"),
        (slimming("bn", FINETUNE), "both", "nothing in this request reads images without classes"),
        (slimming(cuts=2), "nothing", "2 cuts are for recovering in between"),
        (slimming(reinit=True), "nothing", "fresh weights that are not trained are of no use"),
        (slimming(recovering=STATISTICS, reinit=True), "plain", "fresh weights that are not trained are of no use"),
        (slimming(one_shot=True), "nothing", "method magnitude has no sparse phase"),
        (slimming("bn", sparse_steps=0), "plain", "0 sparse steps train nothing"),
        (slimming(recovering=Recovering("distill", 3, "tpu")), "plain", "device 'tpu'"),
        (slimming("bn", device="tpu"), "plain", "device 'tpu'"),
        (Slimming(target=Target("params", 1e5), rule=Rule("global"), cuts=2, recovering=DISTILL), "plain", "may miss"),
        (Slimming(), "nothing", "a ratio or a target says how much"),
    ],
)
def test_what_contradicts_itself_is_refused(
    request_: Slimming, given: str, message: str, request: pytest.FixtureRequest
) -> None:
    images = NOTHING if given == "nothing" else request.getfixturevalue(given)
    with pytest.raises(CompressError, match=message):
        request_.check(images)


@pytest.mark.parametrize(
    ("request_", "given", "used"),
    [
        (slimming(), "both", (False, False)),
        (slimming("bn", one_shot=True), "both", (False, False)),
        (slimming("lcp"), "both", (True, False)),
        (slimming("lcp"), "classes", (True, False)),
        (slimming(recovering=DISTILL), "both", (True, False)),
        (slimming(recovering=FINETUNE), "both", (False, True)),
        (slimming("bn"), "plain", (True, False)),
        (slimming("bn"), "both", (False, True)),
        (slimming("bn", DISTILL), "both", (True, True)),
        (slimming("bn", DISTILL), "classes", (True, True)),
        (slimming("lcp", FINETUNE), "classes", (True, True)),
        (slimming("bn", DISTILL, one_shot=True), "both", (True, False)),
    ],
)
def test_only_what_has_a_use_is_used_and_that_will_do(
    request_: Slimming, given: str, used: tuple[bool, bool], request: pytest.FixtureRequest
) -> None:
    chosen = request_.used(request.getfixturevalue(given))
    assert (chosen.unlabelled is not None, chosen.labelled is not None) == used
    request_.check(chosen)
    assert request_.used(chosen) == chosen


def test_recoveries_that_cannot_be_are_refused() -> None:
    for arguments, message in (
        (("distil",), "did you mean distill"),
        (("bn", 5), "recovery bn trains nothing: leave --steps out"),
        (("distill", 0), "0 steps of recovery: give at least 1"),
    ):
        with pytest.raises(CompressError, match=message):
            Recovering(*arguments)  # type: ignore[arg-type]


def test_too_few_images_are_refused_before_the_cut(
    photographs: Path, dense: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").symlink_to(photographs / "dark" / f"{index:02}.png")
    monkeypatch.setattr(module, "prune", _never)
    with pytest.raises(CompressError, match="3 images are too few to train on: 4 are needed"):
        slimming(recovering=DISTILL).slim(dense, dense, Images(open_images([tmp_path])))


def _never(*arguments: object, **options: object) -> None:
    raise AssertionError("work was done before the refusal")


@pytest.mark.parametrize("recovering", [DISTILL, FINETUNE, STATISTICS], ids=lambda each: each.name)
def test_slimmed_and_recovered(recovering: Recovering, dense: Backbone, plain: Images, classes: Images) -> None:
    slim = slimming(recovering=recovering).slim(dense, dense, classes if recovering.labelled else plain)
    assert record(slim).recover == recovering.name
    assert record(slim).recover_steps == (recovering.steps or 0)
    cut = compress.prune(dense, ratio=0.5)
    assert record(slim).kept == record(cut).kept
    assert not same(slim, cut)


def test_several_cuts_are_each_recovered(dense: Backbone, plain: Images, tmp_path: Path) -> None:
    keep = tmp_path / "slim.safetensors"
    slim = slimming("growing_reg", DISTILL, cuts=2, sparse_steps=2).slim(dense, dense, plain, keep=keep)
    assert (record(slim).recover, record(slim).recover_steps, record(slim).sparse_steps) == ("distill", 6, 4)
    assert record(slim).ratio == pytest.approx(0.5)
    states = {file.name.removeprefix("slim.safetensors.") for file in tmp_path.iterdir()}
    assert states == {"sparse.state1", "sparse.state2", "recovery1.state", "recovery2.state"}


def test_the_control_has_fresh_weights(dense: Backbone, plain: Images) -> None:
    control = slimming(recovering=DISTILL, reinit=True).slim(dense, dense, plain)
    assert (record(control).recover, record(control).recover_steps) == ("reinit+distill", 3)
    assert record(control).kept == record(compress.prune(dense, ratio=0.5)).kept


def test_killed_it_goes_on_to_the_same_weights_and_is_then_forgotten(
    dense: Backbone, plain: Images, tmp_path: Path
) -> None:
    keep = tmp_path / "slim[1].safetensors"  # brackets are a pattern's, and must not be taken for one
    other = tmp_path / "other.safetensors.recovery1.state"
    other.write_text("another file's state")
    request_ = slimming("growing_reg", Recovering("distill", 5), sparse_steps=5)
    unbroken = request_.slim(dense, dense, plain)
    for kill in (3, 6):  # in the sparse phase; after its last three steps, in the recovery
        left = iter(range(kill - 1))

        def report(step: int, loss: float, held_out: float | None, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            request_.slim(dense, dense, plain, keep=keep, report=report)
    assert {file.name for file in tmp_path.iterdir()} == {
        "slim[1].safetensors.sparse.state", "slim[1].safetensors.recovery1.state", other.name,
    }  # fmt: skip
    steps: list[int] = []
    slim = request_.slim(dense, dense, plain, keep=keep, report=lambda *told: steps.append(told[0]))
    assert steps == [3, 4, 5]  # nothing but the rest of the recovery
    assert same(slim, unbroken)
    assert record(slim) == record(unbroken)
    forget(keep)
    assert list(tmp_path.iterdir()) == [other]


def test_states_lie_beside_what_they_are_for(tmp_path: Path) -> None:
    assert state_file(None, "sparse") is None
    assert state_file(tmp_path / "a.safetensors", "sparse") == tmp_path / "a.safetensors.sparse.state"


def test_a_recovery_that_diverges_leaves_the_last_good_state(
    dense: Backbone, plain: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot = dataclasses.replace(RECOVERIES["distill"].recipe, lr=1e30, warm_up=0)
    monkeypatch.setitem(RECOVERIES, "distill", dataclasses.replace(RECOVERIES["distill"], recipe=hot))
    file = tmp_path / "slim.safetensors"
    with (
        pytest.raises(CompressError, match=r"not finite at step \d .* it is in .*slim.last-good.safetensors"),
        keeping_last_good(file),
    ):
        slimming(recovering=DISTILL).slim(dense, dense, plain)
    assert not file.exists()
    good = compress.load_backbone(tmp_path / "slim.last-good.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in good.state_dict().values())


def test_other_refusals_save_nothing(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="no images"), keeping_last_good(tmp_path / "slim.safetensors"):
        raise CompressError("no images")
    assert not list(tmp_path.iterdir())


def test_what_is_slim_already_is_slimmed_further_and_taught_by_its_parent(dense: Backbone, plain: Images) -> None:
    half = slimming(recovering=DISTILL).slim(dense, dense, plain)
    parent = parent_of(half)
    assert same(parent, dense)
    quarter = slimming(recovering=DISTILL).slim(half, parent, plain)
    assert (record(quarter).ratio, record(quarter).recover, record(quarter).recover_steps) == (0.75, "distill", 6)
    assert quarter.feature_info.channels() == [6, 12]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights, and no other in reach."""
    monkeypatch.delenv("PRUNECORE_DATA", raising=False)
    file = tmp_path / "mine.safetensors"
    save_file(compress.create_backbone("mobilenet_v3_small", weights="none", seed=8).trunk.state_dict(), file)
    return file


def test_the_parent_is_found_by_its_weights(weights: Path, dense: Backbone, tmp_path: Path) -> None:
    origin = compress.create_backbone("mobilenet_v3_small", weights=str(weights), taps=["features.3"])
    slim = compress.prune(origin, ratio=0.5)
    parent = parent_of(slim, weights=str(weights))
    assert same(parent, origin)
    assert parent.spec == origin.spec
    assert parent_of(dense) is dense
    seeded = compress.create_backbone("mobilenet_v3_small", weights="none", seed=3)
    assert same(parent_of(compress.prune(seeded, ratio=0.3)), seeded)
    other = tmp_path / "other.safetensors"
    save_file(dense.trunk.state_dict(), other)
    with pytest.raises(CompressError, match=r"other\.safetensors\) are not those .*mine\.safetensors.*--weights"):
        parent_of(slim, weights=str(other))


def test_only_distillation_asks_for_the_parents_weights(weights: Path) -> None:
    slim = compress.prune(compress.create_backbone("mobilenet_v3_small", weights=str(weights)), ratio=0.5)
    for recovering in (FINETUNE, STATISTICS):
        assert recovering.teacher(slim, "nowhere.safetensors") is slim
    with pytest.raises(CompressError, match="nowhere"):
        DISTILL.teacher(slim, "nowhere.safetensors")


def test_names_tell_slimmings_apart() -> None:
    names = [
        each.name
        for each in (slimming(), slimming("bn"), slimming(recovering=DISTILL), Slimming(target=Target("params", 1e5)))
    ]
    assert names == ["magnitude-0.5", "batch_norm-0.5", "magnitude-0.5-distill", "magnitude-target"]
    assert module.NO_RECOVERY not in RECOVERIES
