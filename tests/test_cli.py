"""The command line as a user types it: results on stdout, one line and exit code 2 for what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import compress
from compress import ARCHITECTURES, METHODS, RECOVERIES
from pipelines import demo as demo_module
from pipelines.cli import app
from pipelines.sweep import SweepPlan

ARCH = "mobilenet_v3_small"
RANDOM = ("--weights", "none")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in a folder of its own, without the machine's data or caches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNECORE_DATA", raising=False)
    monkeypatch.setenv("PRUNECORE_CACHE", str(tmp_path / "cache"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    """The one line that a refusal prints."""
    assert result.exit_code == 2, result.output
    assert not result.stdout
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("compress: ")
    assert "Traceback" not in result.stderr
    return lines[-1]


def test_prune_then_profile_then_evaluate(tiny_dataset: Path) -> None:
    pruned = run("prune", "--arch", ARCH, "--ratio", 0.5, *RANDOM, "-o", "slim.safetensors")
    assert pruned.exit_code == 0, pruned.output
    assert "2.54 M" in pruned.stdout
    assert "0.91 M" in pruned.stdout
    assert "wrote slim.safetensors" in pruned.stdout
    profiled = run("profile", "slim.safetensors", "--json")
    described = json.loads(profiled.stdout)
    assert (described["arch"], described["method"], described["ratio"]) == (ARCH, "magnitude", 0.5)
    assert described["layers"]["features.0.0"] == [16, 8]
    assert described["file_bytes"] == Path("slim.safetensors").stat().st_size
    evaluated = run(
        "evaluate", "slim.safetensors", "--dataset", tiny_dataset, "--category", "printed_grid", "-o", "row.json"
    )
    assert evaluated.exit_code == 0, evaluated.output
    row = json.loads(Path("row.json").read_text())
    assert (row["arch"], row["category"], row["params_used"]) == (ARCH, "printed_grid", described["params_used"])
    assert f"{row['image_auroc']:.3f}" in evaluated.stdout


def test_profile_for_people() -> None:
    shown = run("profile", "resnet18")
    assert "resnet18" in shown.stdout
    assert "layer2, layer3" in shown.stdout
    run("prune", "--arch", ARCH, "--ratio", 0.3, *RANDOM)
    assert "features.8.block.3.0" in run("profile", f"{ARCH}-p30.safetensors").stdout


def test_an_artifact_can_be_slimmed_further() -> None:
    run("prune", "--arch", ARCH, "--ratio", 0.5, *RANDOM, "-o", "half.safetensors")
    again = run("prune", "--arch", "half.safetensors", "--ratio", 0.5, "-o", "quarter.safetensors")
    assert again.exit_code == 0, again.output
    assert compress.load_backbone("quarter.safetensors").feature_info.channels() == [6, 12]


def test_several_categories_make_a_list_of_rows(tiny_dataset: Path) -> None:
    result = run("evaluate", ARCH, *RANDOM, "--dataset", tiny_dataset, "--timing", "-o", "rows.json")
    assert result.exit_code == 0, result.output
    rows = json.loads(Path("rows.json").read_text())
    assert [row["category"] for row in rows] == ["printed_grid", "woven_fabric"]
    assert all(row["ms_total"] > 0 for row in rows)
    assert "printed_grid" in result.stdout
    assert "woven_fabric" in result.stdout


def test_sweep_report_and_a_failure_in_between(tiny_dataset: Path) -> None:
    swept = run("sweep", "--arch", ARCH, *RANDOM, "--ratios", "0,0.5,0.95", "--dataset", tiny_dataset, "-o", "runs")
    assert swept.exit_code == 1, swept.output
    assert "4 runs done, 0 kept from before, 2 failed" in swept.stderr
    reported = run("report", "runs", "-o", "report")
    assert reported.exit_code == 0, reported.output
    assert "wrote report/index.html" in reported.stdout
    page = Path("report/index.html").read_text()
    assert "largest ratio that leaves one" in page
    assert {"report.md", "results.csv", "index.html", "figures"} <= {file.name for file in Path("report").iterdir()}
    assert len(list(Path("report/figures").glob("*.png"))) >= 4


def test_a_sweep_out_of_a_file(tiny_dataset: Path) -> None:
    Path("sweep.toml").write_text(
        f'archs = ["{ARCH}"]\nweights = "none"\nratios = [0]\ndatasets = ["{tiny_dataset}"]\ntiming = false\n'
    )
    assert run("sweep", "sweep.toml", "-o", "runs").exit_code == 0
    assert len(list(Path("runs").glob("*.json"))) == 2


def test_the_demo_is_a_sweep_and_its_report(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [
        SweepPlan(archs=(arch,), weights="none", ratios=(ratio,), datasets=(str(tiny_dataset),), timing=False)
        for arch, ratio in ((ARCH, 0.5), ("resnet18", 0.9))
    ]
    monkeypatch.setattr(demo_module, "DEMO", small)
    result = run("demo", "-o", "demo")
    assert result.exit_code == 0, result.output
    assert "wrote demo/report/index.html" in result.stdout
    table = Path("demo/report/report.md").read_text()
    assert all(f"| {arch} |" in table for arch in (r"mobilenet\_v3\_small", "resnet18"))


def test_a_demo_with_a_failure_runs_the_rest_and_reports(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [
        SweepPlan(archs=(ARCH,), weights="none", ratios=(ratio,), datasets=(str(tiny_dataset),), timing=False)
        for ratio in (0.95, 0.5)  # a ratio that leaves no channel is refused
    ]
    monkeypatch.setattr(demo_module, "DEMO", small)
    result = run("demo", "-o", "demo")
    assert result.exit_code == 1, result.output
    assert "wrote demo/report/index.html" in result.stdout
    assert len(list(Path("demo/runs").glob("*-0.5-*.json"))) == 2


def test_the_demo_slims_the_missions_backbones_with_what_ships() -> None:
    asked = [
        (plan.archs, plan.precisions, slimming.ratio if slimming else 0.0)
        for plan in demo_module.DEMO
        for slimming in plan.slimmings()
    ]
    resnet, small = ("resnet18",), ("mobilenet_v3_small",)
    both = ("fp32", "int8")
    assert asked == [((*resnet, *small), ("fp32",), 0.0), (resnet, both, 0.3), (small, both, 0.3)]
    for plan in demo_module.DEMO:
        assert (plan.weights, plan.datasets) == ("bundled", ("generated",))
        assert all(slimming.recovering for slimming in plan.slimmings() if slimming)


def test_generate() -> None:
    result = run("generate", "-o", "set", "--train", 1, "--good", 1, "--per-defect", 1)
    assert result.exit_code == 0, result.output
    assert Path("set/wood_grain/test/scratch/000.png").is_file()
    assert "not an empty folder" in refused(run("generate", "-o", "set"))


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("methods", [*METHODS, *RECOVERIES]),
        ("backbones", ARCHITECTURES),
        ("datasets", ["generated", "elpv", "mvtec", "folder"]),
    ],
)
def test_lists(command: str, names: list[str]) -> None:
    assert [entry["name"] for entry in json.loads(run(command, "--json").stdout)] == list(names)
    shown = run(command).stdout
    assert all(name in shown for name in names)


def test_every_command_teaches_itself() -> None:
    overview = run("--help").stdout
    assert all(panel in overview for panel in ("Slim", "Judge", "Look up"))
    for command in (
        "prune",
        "distill",
        "profile",
        "evaluate",
        "sweep",
        "status",
        "report",
        "demo",
        "generate",
        "datasets",
        "methods",
    ):
        assert command in overview
        assert run(command, "--help").exit_code == 0


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, pipelines.cli; print({'torch', 'matplotlib', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_refusals_are_one_line(tiny_dataset: Path) -> None:
    evaluate = ("evaluate", ARCH, *RANDOM)
    prune = ("prune", "--arch", ARCH, *RANDOM)
    Path("empty").mkdir()
    twin = Path(shutil.copytree(tiny_dataset, Path("other", tiny_dataset.name)))
    Path("plan.toml").write_text("ratios = [0]")
    Path("text.safetensors").write_text("not an artifact")
    cases = [
        ("did you mean resnet18", ("prune", "--arch", "resnet19", "--ratio", 0.5)),
        ("did you mean magnitude", (*prune, "--ratio", 0.5, "--method", "magnitud")),
        ("ratio 1.5 is outside [0, 1)", (*prune, "--ratio", 1.5)),
        ("Invalid value for '--ratio'", (*prune, "--ratio", "half")),
        ("nothing says how much to prune", prune),
        ("No such option: --ratoi", (*prune, "--ratoi", 0.5)),
        ("Did you mean 'prune'", ("prun",)),
        ("no dataset given", (*evaluate, "--dataset", "", "-o", "row.json")),
        ("is there twice", (*evaluate, "--dataset", f"{tiny_dataset},{twin}")),
        ("--ratios beside a TOML plan", ("sweep", "plan.toml", "--ratios", "0.1")),
        ("goes to --weights", ("profile", "resnet18.pth")),
        ("ratio nan is outside [0, 1)", (*prune, "--ratio", "nan")),
        ("ratio -0.1 is outside [0, 1)", (*prune, "--ratio", -0.1)),
        ("largest ratio that leaves one", (*prune, "--ratio", 0.99)),
        ("the folder", (*prune, "--ratio", 0.5, "-o", "missing/slim.safetensors")),
        ("it is a folder", (*prune, "--ratio", 0.5, "-o", "empty")),
        ("no stage 'features.77'", (*prune, "--ratio", 0.5, "--taps", "features.77")),
        ("no pretrained weights for wide_resnet50_2 here", ("prune", "--arch", "wide_resnet50_2", "--ratio", 0.5)),
        ("no such file: no.pth", ("prune", "--ratio", 0.5, "--weights", "no.pth")),
        ("no folder of that name", (*evaluate, "--dataset", "nowhere")),
        ("in no known layout", (*evaluate, "--dataset", "empty")),
        ("no category 'screws'", (*evaluate, "--dataset", tiny_dataset, "--category", "screws")),
        ("coreset ratio 0.0 is outside", (*evaluate, "--dataset", tiny_dataset, "--coreset", 0)),
        ("more than the", (*evaluate, "--dataset", tiny_dataset, "--bank-size", 10**6)),
        ("is truncated, damaged or no", ("profile", "text.safetensors")),
        ("no such file", ("profile", "missing.safetensors")),
        ("no comma-separated list of numbers", ("sweep", "--arch", ARCH, "--ratios", "0,half")),
        ("ratio 2.0 is outside", ("sweep", "--arch", ARCH, "--ratios", "0,2")),
        ("no results folder", ("report", "nowhere")),
        ("0 runs to report", ("report", "empty")),
    ]
    for message, arguments in cases:
        assert message in refused(run(*arguments)), arguments
    assert not [file for file in Path().iterdir() if file.name.endswith("-p50.safetensors")]


def test_what_is_finished_is_kept_when_a_later_category_is_refused(tiny_dataset: Path) -> None:
    shutil.copytree(tiny_dataset, "data")
    mask = Path("data/woven_fabric/ground_truth/hole/000_mask.png")
    Image.new("L", (9, 9)).save(mask)
    result = run("evaluate", ARCH, *RANDOM, "--dataset", "data", "-o", "row.json")
    assert "9 x 9 pixels, its image 256 x 256" in refused(result)
    assert json.loads(Path("row.json").read_text())["category"] == "printed_grid"


def test_masks_that_mark_nothing_are_told(tiny_dataset: Path) -> None:
    shutil.copytree(tiny_dataset / "printed_grid", "grid")
    for mask in Path("grid/ground_truth").rglob("*.png"):
        Image.new("L", (256, 256)).save(mask)
    result = run("evaluate", ARCH, *RANDOM, "--dataset", "grid", "-o", "row.json")
    assert "no mask marks a pixel" in result.stderr
    assert json.loads(Path("row.json").read_text())["pixel_auroc"] is None


def test_a_prunecore_data_that_is_no_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNECORE_DATA", "nowhere")
    assert "PRUNECORE_DATA is 'nowhere'" in refused(run("prune", "--ratio", 0.5))


def test_names_are_no_markup(tiny_dataset: Path) -> None:
    shutil.copytree(tiny_dataset / "printed_grid", "data/[bold]grid")
    result = run("evaluate", ARCH, *RANDOM, "--dataset", "data")
    assert "[bold]grid" in result.stdout


def test_a_name_that_is_no_text_is_shown_by_its_escape() -> None:
    out = os.fsdecode(b"slim\xff.safetensors")
    result = run("prune", "--arch", ARCH, "--ratio", 0.5, *RANDOM, "-o", out)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, r"wrote slim\udcff.safetensors")
    assert Path(out).is_file()


def test_weights_for_an_artifact_contradict(tiny_dataset: Path) -> None:
    run("prune", "--arch", ARCH, "--ratio", 0.5, *RANDOM, "-o", "slim.safetensors")
    assert "contradicts" in refused(run("evaluate", "slim.safetensors", *RANDOM, "--dataset", tiny_dataset))
    assert "--taps works on" in refused(run("evaluate", "slim.safetensors", "--taps", "features.3"))


def test_a_damaged_image_is_named(tiny_dataset: Path) -> None:
    for split, kinds in (("train", ["good"]), ("test", ["good", "hole"])):
        for kind in kinds:
            folder = Path("data", split, kind)
            folder.mkdir(parents=True)
            Image.new("RGB", (64, 64)).save(folder / "a.png")
    content = Path("data/train/good/a.png").read_bytes()
    Path("data/train/good/b.png").write_bytes(content[: len(content) // 2])
    line = refused(run("evaluate", ARCH, *RANDOM, "--dataset", "data", "-o", "row.json"))
    assert "data/train/good/b.png is truncated or damaged" in line
    assert not Path("row.json").exists()


def test_what_is_missing_is_said_once(tiny_dataset: Path) -> None:
    for kind in ("good", "bad"):
        Path("line", kind).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (64, 64), (index * 40, 0, 0)).save(Path("line", kind, f"{index}.png"))
    result = run("evaluate", ARCH, *RANDOM, "--dataset", "line", "--bank-size", 10)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("no masks, so its pixel metrics are n/a") == 1
    assert "n/a" in result.stdout


def test_prunecore_data_is_searched_for_datasets_and_weights(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root" / "data").mkdir(parents=True)
    (tmp_path / "root" / "weights").mkdir()
    (tmp_path / "root" / "data" / "fabric").symlink_to(tiny_dataset)
    from safetensors.torch import save_file

    state = compress.create_backbone(ARCH, weights="none", seed=8).trunk.state_dict()
    save_file(state, tmp_path / "root" / "weights" / f"{ARCH}-mine.safetensors")
    monkeypatch.setenv("PRUNECORE_DATA", str(tmp_path / "root"))
    result = run("evaluate", ARCH, "--dataset", "fabric", "--category", "printed_grid", "-o", "row.json")
    assert result.exit_code == 0, result.output
    assert f"weights: {ARCH}-mine.safetensors" in result.stderr
    assert json.loads(Path("row.json").read_text())["weights_source"] == f"{ARCH}-mine.safetensors"


def test_ctrl_c_is_one_line_and_leaves_nothing_half_written(tiny_dataset: Path, tmp_path: Path) -> None:
    code = "from pipelines.cli import app; app()"
    ratios = ",".join(f"0.{n:02}" for n in range(1, 90))
    arguments = ["sweep", "--arch", ARCH, *RANDOM, "--ratios", ratios, "--dataset", str(tiny_dataset), "-o", "runs"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # A suite that runs in the background of a shell hands down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(Path("runs").glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip().splitlines()[-1] == "compress: interrupted"
    assert "Traceback" not in errors
    for file in Path("runs").glob("*.json"):
        assert json.loads(file.read_text())["arch"] == ARCH
    assert not list(Path("runs").rglob(".*"))
