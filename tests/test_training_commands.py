"""compress prune, distill and sweep with all that trains: what they write, and what they refuse in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from networks import same
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import compress
from anomaly.datasets.generated import generate
from compress import RECOVERIES
from compress.backbone import Pruning
from compress.pruning.targets import QUANTITIES
from pipelines import within_drop
from pipelines.cli import app
from pipelines.validation import ValidationSplit

ARCH = "mobilenet_v3_small"
PRUNE = ("prune", "--arch", ARCH, "--weights", "none")

pytestmark = pytest.mark.usefixtures("small_recipes")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photographs: Path) -> None:
    """Each test in a folder of its own, with photographs and nothing of the machine's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNECORE_DATA", raising=False)
    monkeypatch.setenv("PRUNECORE_CACHE", str(tmp_path / "cache"))
    Path("photos").symlink_to(photographs)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    """The one line that a refusal prints."""
    assert result.exit_code == 2, result.output
    assert not result.stdout
    assert "Traceback" not in result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("compress: ")
    return line


def same_weights(one: str, other: str) -> bool:
    """Whether two artifacts have the same tensors."""
    return same(compress.load_backbone(one), compress.load_backbone(other))


def made(result: Result, file: str) -> Pruning:
    """The record of the artifact that a command wrote."""
    assert result.exit_code == 0, result.output
    assert f"wrote {file}" in result.stdout
    assert not list(Path().glob("*.state*"))
    pruning = compress.load_backbone(file).spec.pruning
    assert pruning is not None
    return pruning


def test_images_are_for_recovery_unless_said_otherwise() -> None:
    record = made(run(*PRUNE, "--ratio", 0.5, "--images", "photos", "--steps", 2), f"{ARCH}-p50.safetensors")
    assert (record.recover, record.recover_steps) == ("distill", 2)
    shown = run(
        *PRUNE, "--ratio", 0.5, "--images", "photos", "--method", "lcp", "--recover", "none", "-o", "a.safetensors"
    )
    assert made(shown, "a.safetensors").recover == "none"
    assert "no recovery was done" in shown.stderr


def test_labels_are_for_finetuning_unless_said_otherwise() -> None:
    shown = run(*PRUNE, "--ratio", 0.5, "--labelled", "photos", "--steps", 2, "-o", "a.safetensors")
    assert made(shown, "a.safetensors").recover == "finetune"
    assert "recovery: finetune, 2 steps" in shown.stderr


def test_sparse_phase_cuts_and_control() -> None:
    shown = run(
        *PRUNE, "--ratio", 0.5, "--method", "bn", "--sparse-steps", 2, "--iterative", 2, "--images", "photos",
        "--steps", 2, "--device", "cpu", "--reinit", "-o", "a.safetensors",
    )  # fmt: skip
    record = made(shown, "a.safetensors")
    assert (record.method, record.sparse_steps, record.recover) == ("batch_norm", 4, "reinit+distill")
    assert "sparse phase of 4 steps" in shown.stderr
    shown = run(*PRUNE, "--ratio", 0.5, "--method", "group_norm", "--one-shot", "-o", "b.safetensors")
    assert made(shown, "b.safetensors").sparse_steps == 0
    assert "one shot" in shown.stderr


def test_limits_of_the_cut() -> None:
    dense = compress.create_backbone(ARCH, weights="none").feature_info.channels()
    shown = run(
        *PRUNE, "--ratio", 0.4, "--scope", "global", "--round-to", 8, "--max-layer-ratio", 0.6, "--ignore",
        "features.0.*", "--ignore", "features.9.*", "--protect-taps", "-o", "a.safetensors",
    )  # fmt: skip
    record = made(shown, "a.safetensors")
    assert record.scope == "global"
    assert record.kept
    assert not [name for name in record.kept if name.startswith(("features.0.", "features.9."))]
    assert compress.load_backbone("a.safetensors").feature_info.channels() == dense
    widths = {name: len(kept) for name, kept in record.kept.items()}
    assert all(width % 8 == 0 for width in widths.values())


@pytest.mark.parametrize(
    ("option", "text", "name"),
    [
        ("params", "90k", "params90k"),
        ("macs", "40%", "macs40pct"),
        ("size", "0.5 MB", "size0.5MB"),
        ("latency", "50%", "latency50pct"),
    ],
)
def test_targets_name_the_file(option: str, text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = dataclasses.replace(QUANTITIES["latency"], measure=QUANTITIES["params"].measure)
    monkeypatch.setitem(QUANTITIES, "latency", measured)
    result = run(*PRUNE, f"--target-{option}", text)
    record = made(result, f"{ARCH}-{name}.safetensors")
    if option == "latency":
        assert all(len(kept) % 8 == 0 for kept in record.kept.values())


def test_distill_goes_on_where_prune_ended() -> None:
    run(*PRUNE, "--ratio", 0.5, "--images", "photos", "--steps", 2, "-o", "a.safetensors")
    shown = run(
        "distill", "a.safetensors", "--images", "photos/dark,photos/bright", "--steps", 3, "-o", "b.safetensors"
    )
    assert made(shown, "b.safetensors").recover_steps == 5
    assert not shown.stdout.startswith(" ")
    for recover, images in (("finetune", "--labelled"), ("bn", "--images")):
        steps = ("--steps", 2) if recover == "finetune" else ()
        shown = run("distill", "a.safetensors", "--recover", recover, images, "photos", *steps, "-o", "c.safetensors")
        assert made(shown, "c.safetensors").recover == f"distill+{recover}"


def test_distill_takes_the_artifacts_seed() -> None:
    """The same images are held out as before: by others it would be judged by what it was trained on."""
    run(*PRUNE, "--ratio", 0.5, "--images", "photos", "--steps", 2, "--seed", 3, "-o", "a.safetensors")
    for file, *seed in (("own",), ("three", "--seed", 3), ("none", "--seed", 0)):
        more = run("distill", "a.safetensors", "--images", "photos", "--steps", 2, *seed, "-o", f"{file}.safetensors")
        assert made(more, f"{file}.safetensors").recover_steps == 4
    assert same_weights("own.safetensors", "three.safetensors")
    assert not same_weights("own.safetensors", "none.safetensors")


def test_a_recovery_that_gains_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    run(*PRUNE, "--ratio", 0.5, "--images", "photos", "--steps", 2, "-o", "a.safetensors")
    again = ("distill", "a.safetensors", "--images", "photos", "--steps", 2, "-o", "b.safetensors")
    assert "gained nothing" not in run(*again).output
    assert not same_weights("a.safetensors", "b.safetensors")
    astray = dataclasses.replace(RECOVERIES["distill"].recipe, lr=0.5, warm_up=0, holdout=0.05)
    monkeypatch.setitem(RECOVERIES, "distill", dataclasses.replace(RECOVERIES["distill"], recipe=astray))
    shown = run(*again)
    assert "distill gained nothing at ratio 0.5: no state was better on the held-out images" in shown.output
    assert made(shown, "b.safetensors").recover_steps == 4  # spent, though in vain
    assert same_weights("a.safetensors", "b.safetensors")
    recalibrated = ("distill", "b.safetensors", "--images", "photos", "--recover", "bn", "-o", "c.safetensors")
    run(*recalibrated)
    assert "gained nothing" not in run("distill", "c.safetensors", *recalibrated[2:]).output  # it trains nothing
    whole = run(*PRUNE, "--ratio", 0, "--images", "photos", "--steps", 2, "-o", "d.safetensors")
    assert "gained nothing" not in whole.output  # nothing was lost
    assert "features have suffered" not in run(*PRUNE, "--ratio", 0, "-o", "e.safetensors").output


def test_what_is_slim_is_slimmed_further_with_its_parents_weights() -> None:
    save_file(compress.create_backbone(ARCH, weights="none", seed=8).trunk.state_dict(), "mine.safetensors")
    start = run("prune", "--arch", ARCH, "--weights", "mine.safetensors", "--ratio", 0.3, "-o", "a.safetensors")
    assert start.exit_code == 0, start.output
    further = ("prune", "--arch", "a.safetensors", "--ratio", 0.3, "--images", "photos", "--steps", 2)
    assert made(run(*further, "--weights", "mine.safetensors"), "a-p30.safetensors").ratio == pytest.approx(0.51)
    assert "give these with --weights" in refused(run(*further, "--weights", "none"))


def test_a_diverging_recovery_says_the_step_and_where_the_last_good_state_is(monkeypatch: pytest.MonkeyPatch) -> None:
    hot = dataclasses.replace(RECOVERIES["distill"].recipe, lr=1e30, warm_up=0)
    monkeypatch.setitem(RECOVERIES, "distill", dataclasses.replace(RECOVERIES["distill"], recipe=hot))
    line = refused(run(*PRUNE, "--ratio", 0.5, "--images", "photos", "--steps", 5, "-o", "a.safetensors"))
    assert "not finite at step" in line
    assert line.endswith("it is in a.last-good.safetensors")
    assert not Path("a.safetensors").exists()
    run(*PRUNE, "--ratio", 0.5, "-o", "b.safetensors")
    line = refused(run("distill", "b.safetensors", "--images", "photos", "--steps", 5, "-o", "c.safetensors"))
    assert line.endswith("it is in c.last-good.safetensors")
    assert compress.load_backbone("c.last-good.safetensors").spec.pruning


def test_a_killed_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.console import ProgressBars

    arguments = (*PRUNE, "--ratio", 0.5, "--images", "photos", "--steps", 5, "-o")
    made(run(*arguments, "whole.safetensors"), "whole.safetensors")
    steps: list[int] = []

    def report(self: ProgressBars, step: int, loss: float, held_out: float | None) -> None:
        steps.append(step)
        if steps == [1, 2, 3]:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBars, "report", report)
    assert refused(run(*arguments, "killed.safetensors")) == "compress: interrupted"
    assert [file.name for file in Path().glob("killed*")] == ["killed.safetensors.recovery1.state"]
    other = run(*arguments, "killed.safetensors", "--seed", 1)
    assert "belongs to another request" in refused(other)
    made(run(*arguments, "killed.safetensors"), "killed.safetensors")
    assert steps == [1, 2, 3, 3, 4, 5]
    whole, killed = (compress.load_backbone(f"{name}.safetensors") for name in ("whole", "killed"))
    assert same(killed, whole)
    assert killed.spec == whole.spec


def test_a_drop_of_auroc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real validation split, real cuts and a real detector; only the share of images is cut down."""
    generate(Path("tiny"), seed=3, surfaces=["printed_grid"], train=24, good=1, per_defect=1)
    own = within_drop.validation_split

    def small(*arguments: Any, **options: Any) -> ValidationSplit:
        split = own(*arguments, **options)
        return dataclasses.replace(split, defective=split.defective[:8], masks=split.masks[:8])

    monkeypatch.setattr(within_drop, "validation_split", small)
    monkeypatch.setattr(within_drop, "NEAR_CHANCE", 0.0)  # weights are random
    shown = run(*PRUNE, "--max-auroc-drop", 0.99, "--dataset", "tiny")
    assert made(shown, f"{ARCH}-drop0.99.safetensors").ratio == pytest.approx(0.87)
    assert "validation AUROC" in shown.stdout
    assert "0.87" in shown.stdout
    monkeypatch.setattr(within_drop, "NEAR_CHANCE", 1.01)
    assert "a drop means nothing: give pretrained weights" in refused(
        run(*PRUNE, "--max-auroc-drop", 0.5, "--dataset", "tiny", "-o", "a.safetensors")
    )


def test_a_sweep_with_recovery(tiny_dataset: Path) -> None:
    arguments = (
        "sweep", "--arch", ARCH, "--weights", "none", "--ratios", 0.5, "--methods", "growing_reg", "--sparse-steps", 2,
        "--images", "photos", "--steps", 2, "--scope", "local", "--dataset", tiny_dataset, "--category", "printed_grid",
        "--no-timing", "-o", "runs",
    )  # fmt: skip
    swept = run(*arguments)
    assert swept.exit_code == 0, swept.output
    assert "2 runs done" in swept.stderr
    rows = [json.loads(file.read_text()) for file in Path("runs").glob("*.json")]
    assert {row["recover"] for row in rows} == {"none", "distill"}
    also = run(*arguments, "--recover", "none,bn,distill")
    assert "1 runs done, 2 kept" in also.stderr


def test_contradictions_are_one_line(tiny_dataset: Path) -> None:
    half = (*PRUNE, "--ratio", 0.5)
    run(*half, "-o", "slim.safetensors")
    distill = ("distill", "slim.safetensors", "-o", "better.safetensors")
    again = ("prune", "--arch", "slim.safetensors", "--ratio", 0.5)
    sweep = ("sweep", "--arch", ARCH, "--weights", "none", "--dataset", tiny_dataset)
    before = {file.name for file in Path().iterdir()}
    cases: list[tuple[str, tuple[object, ...]]] = [
        ("2 goals contradict", (*half, "--target-params", "1M")),
        ("2 targets contradict", (*PRUNE, "--target-params", "1M", "--target-macs", "50%")),
        ("is not understood: write it like 400M", (*PRUNE, "--target-macs", "many")),
        ("cannot be met: ratio", (*PRUNE, "--target-params", "100")),
        ("go together: give both or none", (*PRUNE, "--max-auroc-drop", 0.1)),
        ("go together: give both or none", (*half, "--dataset", tiny_dataset)),
        ("--category a, but no --dataset", (*half, "--category", "a")),
        ("AUROC drop 3.0 is outside", (*PRUNE, "--max-auroc-drop", 3, "--dataset", tiny_dataset)),
        ("round_to 0 is below 1", (*half, "--round-to", 0)),
        ("max_layer_ratio 1.5 is outside", (*half, "--max-layer-ratio", 1.5)),
        ("--steps 3, but no recovery", (*half, "--steps", 3)),
        ("--sparse-steps 3, but no sparse phase", (*half, "--sparse-steps", 3)),
        ("no sparse phase that one-shot could", (*half, "--one-shot")),
        ("or ask for one-shot", (*half, "--method", "bn")),
        ("recovery finetune learns from classes", (*half, "--images", "photos", "--recover", "finetune")),
        ("nothing in this request learns from classes", (*half, "--labelled", "photos", "--recover", "distill")),
        ("leave --images out", (*half, "--images", "photos", "--recover", "none")),
        ("the folder of images nowhere does not exist", (*half, "--images", "nowhere")),
        ("no images given", (*half, "--images", "")),
        ("unknown device 'tpu'", (*half, "--images", "photos", "--device", "tpu")),
        ("2 cuts are for recovering in between", (*half, "--iterative", 2)),
        ("are of no use", (*half, "--reinit")),
        ("trains nothing: leave --steps out", (*half, "--images", "photos", "--recover", "bn", "--steps", 2)),
        ("did you mean distill", (*half, "--images", "photos", "--recover", "distil")),
        ("leaves the backbone as it is", (*distill, "--recover", "none")),
        ("is an architecture", ("distill", ARCH, "-o", "better.safetensors")),
        ("recovery distill needs images", distill),
        ("recovery distill learns from no classes", (*distill, "--labelled", "photos")),
        ("reads no images without classes", (*distill, "--recover", "finetune", "--images", "photos")),
        ("learns from no dense parent", (*distill, "--recover", "bn", "--images", "photos", "--weights", "none")),
        (
            "no such file: gone.safetensors",
            ("distill", "gone.safetensors", "--images", "nowhere", "-o", "b.safetensors"),
        ),
        ("did you mean resnet18", ("prune", "--arch", "resnet81", "--ratio", 0.5, "--images", "nowhere")),
        ("contradicts slim.safetensors", (*again, "--images", "photos", "--recover", "bn", "--weights", "none")),
        ("is above max_layer_ratio 0.3", (*half, "--max-layer-ratio", 0.3)),
        ("recovery distill needs images", (*sweep, "--recover", "distill", "-o", "runs")),
        ("no recovery to spend them on", (*sweep, "--steps", 3, "-o", "runs")),
    ]
    for message, arguments in cases:
        assert message in refused(run(*arguments)), arguments
    assert {file.name for file in Path().iterdir()} == before
