"""What a report says in words: what a slimming keeps, what it costs, and what the numbers do not show."""

from __future__ import annotations

import pytest
from report_rows import half, run

from reports import summary_text
from reports.summary import summarize
from reports.table import summary_table
from reports.words import SMALL_LOSS, STRONG_LOSS, findings


def test_summary_in_words() -> None:
    told = summary_text([run(), half()])
    assert (
        told[0]
        == "resnet18 on tiles: The origin reaches image AUROC 0.950 with 11.69 M parameters and 24.0 ms per image."
    )
    assert told[1] == (
        "resnet18 on tiles: magnitude at 0.5 keeps 99 % of the origin's image AUROC (0.940 of 0.950, -0.010)"
        " with 26 % of its parameters and runs 2.0x faster."
    )


@pytest.mark.parametrize(
    ("image", "pixel", "verdict"),
    [(0.94, 0.79, "holds"), (0.92, 0.8, "costs"), (0.8, 0.8, "fails"), (0.95, 0.7, "fails"), (0.96, 0.81, "holds")],
)
def test_a_loss_is_never_called_a_saving(image: float, pixel: float, verdict: str) -> None:
    runs = [run(), half(image_auroc=image, pixel_auroc=pixel)]
    [finding] = findings(summarize(runs))
    told = " ".join(finding.sentences)
    assert finding.verdict == verdict
    assert ("No setting stays within" in told) == (verdict != "holds")
    assert ("strong loss, not a saving" in told) == (verdict == "fails")
    assert SMALL_LOSS < STRONG_LOSS


def test_worse_costs_are_told_as_worse() -> None:
    runs = [run(), half(ms_total=36.0)]
    assert "runs 1.5x slower" in " ".join(summary_text(runs))
    table = summary_table(summarize(runs))
    place = [head.title for head in table.heads].index("ms total")
    assert table.rows[1][place].notes == (("worse", "1.5x slower"),)


def test_what_recovery_gained_is_told() -> None:
    told = " ".join(summary_text([run(), half(image_auroc=0.7), half(image_auroc=0.9, recover="distill")]))
    assert "distill lifts the image AUROC of magnitude at 0.5 from 0.700 to 0.900." in told
    told = " ".join(summary_text([run(), half(image_auroc=0.7), half(image_auroc=0.6, recover="distill")]))
    assert "distill does not lift the image AUROC of magnitude at 0.5 (-0.100)." in told


def test_what_int8_changes_is_not_told_without_its_float_twin() -> None:
    assert "int8 changes" not in " ".join(summary_text([run(), half(precision="int8")]))


def test_times_of_different_runtimes_are_told() -> None:
    runs = [run(runtime="pytorch"), half(runtime="onnxruntime", precision="int8")]
    assert any("different runtimes" in told and "fp32 in pytorch" in told for told in summary_text(runs))
    assert not any("runtimes" in told for told in summary_text([run(runtime="pytorch"), half(runtime="pytorch")]))
    assert not any("runtimes" in told for told in summary_text([run(), half(runtime="pytorch")]))


def test_cautions() -> None:
    told = " ".join(
        summary_text([run(), half(data_fingerprint="sha256:cd", bank_size=10, weights_source="none (seed 0)")])
    )
    for words in ("different data", "different sizes", "different weights", "random weights", "one seed"):
        assert words in told
    assert "near guessing" in " ".join(summary_text([run(image_auroc=0.51), half()]))
    assert "one seed" not in " ".join(summary_text([run(), run(seed=1)]))


@pytest.mark.parametrize(
    ("field", "values", "told"),
    [
        ("recover_steps", (10, 220), "different steps of recovery (10, 220)"),
        ("sparse_steps", (0, 300), "different steps of the sparse phase (0, 300)"),
        ("index", ("exact", "IVF16,Flat"), "different indexes (IVF16,Flat, exact)"),
        ("dimension", (192, 384), "different lengths of a patch's vector (192, 384)"),
    ],
)
def test_a_mean_of_unlike_experiments_is_told(field: str, values: tuple[object, object], told: str) -> None:
    first, second = values
    other = {field: second, "command": "compress evaluate another.safetensors"}
    mixed = " ".join(summary_text([run(), half(**{field: first}), half(seed=1, **other)]))
    assert f"magnitude 0.5 is a mean over runs with {told}: report them from folders of their own." in mixed
    for alike in ({"seed": 1, field: second}, {"category": "b", **other}, {"seed": 1, **other, field: first}):
        words = " ".join(summary_text([run(), half(**{field: first}), half(**alike)]))  # type: ignore[arg-type]
        assert "is a mean over runs" not in words


def test_several_runs_of_one_seed_are_told() -> None:
    """Other scores or taps leave no trace in a row but in its command."""
    told = " ".join(summary_text([run(), half(), half(image_auroc=0.5)]))
    assert "magnitude 0.5 has several runs on a with seed 0, and their mean counts as one run" in told
    assert "several runs" not in " ".join(summary_text([run(), half(), half(seed=1), half(category="b")]))
