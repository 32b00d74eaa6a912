"""Sensitivity: errors against a network whose channels are silenced by hand, the table, the figure, the command."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner, Result

import compress
from anomaly.datasets.mvtec import read_mvtec
from compress import Backbone, CompressError
from compress.augment import centre_view
from compress.pruning.sensitivity import Sensitivity, sensitivity
from pipelines import sensitivity as pipeline
from pipelines.cli import app
from reports import ReportError
from reports.sensitivity import GroupCut, sensitivity_figure, sensitivity_table

IMAGES = list(torch.randint(0, 256, (3, 3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def small() -> Backbone:
    return compress.create_backbone("mobilenet_v3_small", weights="none")


@pytest.fixture(scope="module")
def rows(resnet18: Backbone) -> list[Sensitivity]:
    return sensitivity(resnet18, images=IMAGES, ratios=(0.25, 0.5))


def test_every_group_at_every_ratio_from_input_to_output(rows: list[Sensitivity]) -> None:
    assert len(rows) == 18
    assert [row.group for row in rows[::2]] == [
        "conv1", "layer1.0.conv1", "layer1.1.conv1",
        "layer2.0.conv1", "layer2.0.downsample.0", "layer2.1.conv1",
        "layer3.0.conv1", "layer3.0.downsample.0", "layer3.1.conv1",
    ]  # fmt: skip
    assert set(rows[0].layers) == {"conv1", "layer1.0.conv2", "layer1.1.conv2"}
    assert [(row.channels, row.removed) for row in rows[:2]] == [(64, 16), (64, 32)]
    assert all(row.error > 0 for row in rows)


def test_savings_by_hand(rows: list[Sensitivity]) -> None:
    """32 of the 64 channels inside a block of layer1: two 3x3 convolutions and one batch norm, at 56 x 56."""
    row = next(row for row in rows if row.group == "layer1.0.conv1" and row.ratio == 0.5)
    assert row.params_saved == 2 * 32 * 64 * 9 + 2 * 32
    # fvcore counts a batch norm's four numbers a position, not one
    assert 0 <= row.macs_saved - 2 * 32 * 64 * 9 * 56 * 56 <= 4 * 32 * 56 * 56


def test_the_error_agrees_with_silencing_by_hand(resnet18: Backbone, rows: list[Sensitivity]) -> None:
    layer = "layer2.1.conv1"
    silent = copy.deepcopy(resnet18)
    norms = silent.trunk.get_parameter(f"{layer}.weight").detach().flatten(1).abs().sum(dim=1)
    gone = norms.argsort()[:64]
    with torch.no_grad():
        silent.trunk.get_parameter("layer2.1.bn1.weight")[gone] = 0
        silent.trunk.get_parameter("layer2.1.bn1.bias")[gone] = 0
        batch = torch.stack([centre_view(image) for image in IMAGES]) / 255
        batch = (batch - torch.tensor(resnet18.mean).view(3, 1, 1)) / torch.tensor(resnet18.std).view(3, 1, 1)
        pairs = zip(resnet18(batch), silent(batch), strict=True)
        errors = [
            float((own - whole).square().mean() / whole.var(dim=(0, 2, 3), correction=0).mean()) for whole, own in pairs
        ]
    row = next(row for row in rows if row.group == layer and row.ratio == 0.5)
    assert row.error == pytest.approx(sum(errors) / 2, rel=1e-3)
    assert row.lost == 0


def test_only_groups_that_come_out_in_a_map_lose_some_of_it(rows: list[Sensitivity]) -> None:
    assert {row.group for row in rows if row.lost > 0} == {"layer2.0.downsample.0", "layer3.0.downsample.0"}


def test_a_slim_backbone_is_compared_with_itself(resnet18: Backbone) -> None:
    """Its maps are numbered by the dense parent's channels, which must be looked up."""
    slim = compress.prune(resnet18, ratio=0.5)
    found = sensitivity(slim, images=IMAGES[:1], ratios=(0.01,))
    assert {row.removed for row in found} == {1, 2}  # of 32 to 128 channels
    assert found[-1].error < 0.05  # layer3.1.conv1, at the end


def test_methods_that_read_images_get_them(resnet18: Backbone) -> None:
    with pytest.raises(CompressError, match="3 images are too few for lcp"):
        sensitivity(resnet18, images=IMAGES, method="lcp", ratios=(0.5,))


def test_refusals(small: Backbone) -> None:
    with pytest.raises(CompressError, match="0 images to compare"):
        sensitivity(small, images=[])
    with pytest.raises(CompressError, match=r"ratio 1 is outside \(0, 1\)"):
        sensitivity(small, images=IMAGES, ratios=(0.5, 1))
    with pytest.raises(CompressError, match="no ratios"):
        sensitivity(small, images=IMAGES, ratios=())
    with pytest.raises(CompressError, match="did you mean magnitude"):
        sensitivity(small, images=IMAGES, method="magnitud")


def _cuts(groups: int, ratios: tuple[float, ...] = (0.1, 0.5, 0.9)) -> list[GroupCut]:
    return [
        GroupCut(f"layer{n}", 64, ratio, ratio * (n + 1) / 10, 0.2 if n == 1 else 0.0, 1000 * n, 10**6 * n)
        for n in range(groups)
        for ratio in ratios
    ]


def test_the_table_ranks_groups() -> None:
    table = sensitivity_table(_cuts(3))
    assert table.headers[2:] == [
        "error at 0.1",
        "error at 0.5",
        "error at 0.9",
        "params saved at 0.5",
        "MACs saved at 0.5",
    ]
    assert table.rows[0] == ["layer2", "64", "0.030", "0.150", "0.270", "2,000", "2.00 M"]
    assert [row[0] for row in table.rows] == ["layer2", "layer1 *", "layer0"]
    assert len(table.numeric) == len(table.headers) == len(table.rows[0])


@pytest.mark.parametrize(("groups", "ratios"), [(1, (0.5,)), (2, (0.5,)), (7, (0.1, 0.5, 0.9)), (40, (0.1, 0.5))])
def test_the_figure_names_every_group(groups: int, ratios: tuple[float, ...]) -> None:
    files = sensitivity_figure(_cuts(groups, ratios), title="resnet18 $x$ <b>")
    assert files["sensitivity.png"].startswith(b"\x89PNG")
    svg = files["sensitivity.svg"].decode()
    assert all(f"<!-- layer{n}{' *' if n == 1 else ''} -->" in svg for n in range(groups))
    assert "<b>" not in svg


def test_figures_of_nothing_are_refused() -> None:
    with pytest.raises(ReportError, match="0 cuts to show"):
        sensitivity_table([])
    with pytest.raises(ReportError, match="no ratio in common"):
        sensitivity_table([GroupCut("a", 8, 0.5, 1, 0, 1, 1), GroupCut("b", 8, 0.7, 1, 0, 1, 1)])


def test_errors_of_zero_are_drawn() -> None:
    cuts = [GroupCut(name, 8, ratio, 0.0, 0.0, 1, 1) for name in "ab" for ratio in (0.1, 0.9)]
    assert sensitivity_figure(cuts, title="none")["sensitivity.png"]


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_table_figure_and_numbers(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    result = _run(
        "sensitivity", "mobilenet_v3_small", "--weights", "none", "--ratios", "0.9",
        "--images", tiny_dataset / "printed_grid" / "train", "-o", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "features.1.block.1.fc1" in result.stdout
    assert f"wrote {out}" in result.stdout
    assert "nothing was recovered" in result.stderr
    written = json.loads((out / "sensitivity.json").read_text())
    table = pd.read_csv(out / "sensitivity.csv")
    assert (written["images"], written["method"]) == (6, "magnitude")
    assert (written["weights"], written["taps"]) == ("none (seed 0)", ["features.3", "features.8"])
    assert [cut["group"] for cut in written["cuts"]] == table["group"].tolist()
    assert table["error"].gt(0).any()
    # 0.9 of its 8 channels would be all; 7 go, each with 16 + 1 parameters in this layer and 16 in the next.
    assert table.set_index("group").loc["features.1.block.1.fc1", "params_saved"] == 7 * (16 + 1 + 16)
    assert {file.name for file in out.iterdir()} == {f"sensitivity.{end}" for end in ("csv", "json", "png", "svg")}


def test_without_images_generated_ones_are_used_and_said(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "open_dataset", lambda *_, **__: read_mvtec(tiny_dataset))
    images = pipeline.few_images(None)
    assert len(images) == 12  # all that there are
    assert images[0].dtype == torch.uint8
    assert "no --images given: 16 images of the generated dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--ratios", "0.5,1.5"), "ratio 1.5 is outside (0, 1)"),
        (("--ratios", "half"), "--ratios 'half' is no comma-separated list"),
        (("--images", "nowhere"), "nowhere does not exist"),
        (("--method", "magnitud"), "did you mean magnitude"),
        (("-o", "pyproject.toml/x"), "cannot make the folder"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: tuple[str, ...], complaint: str, tiny_dataset: Path) -> None:
    images = () if "--images" in arguments else ("--images", tiny_dataset / "printed_grid" / "train")
    result = _run("sensitivity", "mobilenet_v3_small", "--weights", "none", *images, *arguments)
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_a_network_in_another_precision_is_scanned_in_float32(resnet18: Backbone, rows: list[Sensitivity]) -> None:
    double = copy.deepcopy(resnet18).double()  # whose weights are the same numbers
    assert sensitivity(double, images=IMAGES, ratios=(0.25, 0.5)) == rows
