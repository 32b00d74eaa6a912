"""The tables of a report: means worked by hand, units, what is compared with what, and the data frame."""

from __future__ import annotations

import numpy as np
import pytest
from html_page import Page
from report_rows import half, run

import reports
from reports import ReportError, Run, frame, render, summary_text, terminal_columns, terminal_table
from reports.columns import COLUMNS, column
from reports.frame import FIELDS
from reports.series import styles
from reports.summary import summarize
from reports.table import same_everywhere, summary_table


def cells(runs: list[Run], title: str) -> list[str]:
    table = summary_table(summarize(runs))
    place = [head.title for head in table.heads].index(title)
    return [row[place].line for row in table.rows]


def test_mean_is_over_seeds_of_a_category_first_then_over_categories() -> None:
    # category a: seeds 0.9 and 0.7, mean 0.8; category b: one seed, 0.6; mean of the two 0.7, not 2.2 / 3
    runs = [run(image_auroc=0.9), run(image_auroc=0.7, seed=1), run(image_auroc=0.6, category="b")]
    mean = summarize(runs).groups[0].mean("image_auroc")
    assert mean is not None
    assert mean.value == pytest.approx(0.7)
    assert mean.categories == 2
    assert ("mean over", "2 categories x 2 seeds") in same_everywhere(summarize(runs))  # said once, not per row
    assert cells([*runs, half()], "mean over") == ["2 categories x 2 seeds", "1 category"]


def test_spread_is_the_deviation_between_seeds() -> None:
    [cell] = cells([run(image_auroc=0.9), run(image_auroc=0.8, seed=1)], "image AUROC")
    assert cell == "0.850 (±0.071)"  # 0.1 / sqrt(2)


def test_seeds_are_held_against_each_other_over_what_they_share() -> None:
    def found(*measured: tuple[int, str, float]) -> list[float]:
        runs = [run(seed=seed, category=category, image_auroc=value) for seed, category, value in measured]
        return summarize(runs).groups[0].by_seed("image_auroc")

    # a sweep that stopped: seed 1 has no b, on which every seed does worse
    stopped = ((0, "a", 0.9), (0, "b", 0.5), (1, "a", 0.92))
    assert found(*stopped) == pytest.approx([0.9, 0.92])
    assert found(*stopped, (1, "b", 0.52)) == pytest.approx([0.7, 0.72])
    assert found(*stopped, (2, "c", 0.1)) == pytest.approx([0.9, 0.92])
    assert found((0, "a", 0.9), (1, "b", 0.5)) == [0.9]


def test_not_available_is_never_zero() -> None:
    runs = [run(aupro=None), run(aupro=0.6, category="b"), run(aupro=0.0, category="c")]
    assert cells(runs, "AUPRO") == ["0.300 (2 of 3 categories)"]
    assert cells([run(aupro=None, ms_total=float("nan"))], "AUPRO") == ["n/a"]
    assert cells([run(ms_total=float("nan"))], "ms total") == ["n/a"]


def test_units_and_comparison_with_the_origin() -> None:
    runs = [half(), run()]
    assert cells(runs, "params (full)") == ["11.69 M", "3.06 M (3.8x fewer)"]
    assert cells(runs, "MACs (full)") == ["1.82 G", "1.82 G"]
    assert cells(runs, "file size") == ["11.2 MB", "2.9 MB (3.9x smaller)"]
    assert cells(runs, "image AUROC") == ["0.950", "0.940 (-0.010)"]
    assert cells(runs, "ms total") == ["24.0 ms", "12.0 ms (2.0x faster)"]
    assert cells(runs, "ratio") == ["origin", "0.5"]


def test_difference_is_over_the_categories_both_have() -> None:
    # the origin has b too, where it is poor; against its mean 0.75 the pruned one would look better than it is
    runs = [run(image_auroc=0.95), run(image_auroc=0.55, category="b"), half(image_auroc=0.94)]
    assert cells(runs, "image AUROC") == ["0.750", "0.940 (-0.010)"]


def test_without_an_origin_nothing_is_compared() -> None:
    assert cells([half()], "image AUROC") == ["0.940"]
    assert "No origin was run" in summary_text([half()])[0]


def test_times_of_different_machines_are_not_compared() -> None:
    runs = [run(), half(machine="another")]
    assert cells(runs, "ms total") == ["24.0 ms", "12.0 ms"]
    assert any("different machines" in told for told in summary_text(runs))
    assert not any("faster" in told for told in summary_text(runs))


def test_a_quantized_dense_network_is_compared_with_the_float_origin() -> None:
    runs = [run(precision="int8", image_auroc=0.945, file_bytes=2_800_000), run()]
    assert cells(runs, "image AUROC") == ["0.950", "0.945 (-0.005)"]
    told = " ".join(summary_text(runs))
    assert "the unpruned network (int8) keeps 99 % of the origin's image AUROC" in told
    assert "with a file 4.0x smaller" in told


def test_precisions_are_told_apart() -> None:
    runs = [
        run(),
        run(precision="int8", file_bytes=2_800_000),
        half(recover="distill"),
        half(recover="distill", precision="int8", file_bytes=800_000, ms_total=6.0, image_auroc=0.938),
    ]
    assert cells(runs, "precision") == ["fp32", "int8", "fp32", "int8"]
    assert cells(runs, "ratio") == ["origin", "0", "0.5", "0.5"], "the origin is one"
    summary = summarize(runs)
    assert [summary.label(group) for group in summary.groups] == [
        "resnet18 origin fp32",
        "resnet18 dense int8",
        "resnet18 magnitude 0.5 fp32",
        "resnet18 magnitude 0.5 int8",
    ]
    assert len(styles(summary)) == 4, "a line for each precision"
    told = " ".join(summary_text(runs))
    assert "magnitude at 0.5 (distill, int8) keeps 99 % of the origin's image AUROC" in told
    assert "with 26 % of its parameters in a file 14.0x smaller and runs 4.0x faster." in told
    worst = "int8 changes magnitude at 0.5 by -0.002 image AUROC and 0.000 pixel AUROC against the same in float"
    assert f"{worst}, the most of 2 settings." in told
    assert render(runs, [], "x")["figures/image_auroc.png"]


def test_keys_that_do_not_differ_are_said_once() -> None:
    runs = [run(), half()]
    assert "precision" not in terminal_table(summarize(runs)).headers
    assert "precision" in terminal_table(summarize([*runs, half(precision="int8")])).headers
    assert "In every run: scope local" in " ".join(Page(render(runs, [], "x")["index.html"]).text.split())


def test_a_row_without_fields_is_not_available_throughout() -> None:
    table = terminal_table(summarize([Run({"arch": "resnet18"})]), brief=False)
    assert table.rows == [["resnet18", *["n/a"] * (len(table.headers) - 1)]]


def test_columns_are_data() -> None:
    names = [each.name for each in COLUMNS]
    assert len(names) == len(set(names))
    assert set(names) <= set(FIELDS)
    assert all(each.help.endswith(".") for each in COLUMNS)
    assert column("image_auroc").better == "higher"
    assert set(reports.__all__) <= set(dir(reports))


def test_categories_stand_side_by_side_with_their_mean() -> None:
    table = terminal_columns([run(image_auroc=0.8, pixel_auroc=None), run(category="cable", image_auroc=0.9)])
    assert table.headers[0] == ""
    assert table.headers[2:] == ["cable", "mean"]
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["image AUROC"] == ["0.800", "0.900", "0.850"]
    assert cells["pixel AUROC"][0] == "n/a"
    assert cells["pixel AUROC"][1] == cells["pixel AUROC"][2]
    assert terminal_columns([run()]).headers[-1] != "mean"
    with pytest.raises(ReportError):
        terminal_columns([])


def test_the_frame_keeps_types_and_fields() -> None:
    table = frame([run(bank_size=5, surprise="x"), run(bank_size=7, image_auroc=None)])
    assert list(table.columns) == [*FIELDS, "surprise"]
    assert table["bank_size"].dtype == np.int64
    assert table["image_auroc"].isna().tolist() == [False, True]
