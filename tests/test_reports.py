"""Reports: means worked by hand, honest words, and pages that hold whatever names they are given."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reports
from reports import (
    Examples,
    ReportError,
    Run,
    Scores,
    frame,
    outlined,
    overlay,
    render,
    summary_text,
    terminal_columns,
    terminal_table,
)
from reports.columns import COLUMNS, column
from reports.figure_style import styles
from reports.figures import figures
from reports.frame import FIELDS
from reports.heatmap import jpeg
from reports.summary import summarize
from reports.table import category_table, same_everywhere, summary_table
from reports.words import SMALL_LOSS, STRONG_LOSS, findings

ORIGIN: dict[str, Any] = {
    "arch": "resnet18",
    "method": "none",
    "ratio": 0.0,
    "scope": "none",
    "recover": "none",
    "precision": "fp32",
    "dataset": "tiles",
    "category": "a",
    "seed": 0,
    "params_full": 11_689_512,
    "params_used": 2_782_784,
    "macs_full": 1_824_033_792,
    "macs_used": 1_400_000_000,
    "file_bytes": 11_200_000,
    "bank_size": 1568,
    "image_auroc": 0.95,
    "image_f1": 0.9,
    "pixel_auroc": 0.8,
    "pixel_f1": 0.4,
    "aupro": 0.6,
    "ms_features": 17.7,
    "ms_embedding": 1.0,
    "ms_search": 3.0,
    "ms_scoring": 0.5,
    "ms_total": 24.0,
    "peak_rss_bytes": 812_000_000,
    "command": "compress evaluate resnet18 --dataset tiles",
    "versions": {"torch": "2.15.0"},
    "machine": "a machine",
    "threads": 2,
    "data_fingerprint": "sha256:ab",
    "weights_source": "imagenet",
    "weights_fingerprint": None,
}
HALF = {
    "method": "magnitude",
    "ratio": 0.5,
    "scope": "local",
    "params_full": 3_056_000,
    "params_used": 727_000,
    "macs_used": 368_000_000,
    "file_bytes": 2_900_000,
    "ms_total": 12.0,
}


def run(examples: Examples | None = None, **changes: Any) -> Run:
    return Run(ORIGIN | changes, examples)


def half(**changes: Any) -> Run:
    return run(**(HALF | {"image_auroc": 0.94, "pixel_auroc": 0.79} | changes))


def example_images(k: int = 2, *, masks: bool = True, names: list[str] | None = None) -> Examples:
    rng = np.random.default_rng(0)
    truth = np.zeros((k, 48, 64), bool)
    truth[0, 10:20, 10:20] = True
    maps = rng.random((k, 48, 64)).astype(np.float32)
    images = rng.integers(0, 255, (k, 48, 64, 3)).astype(np.uint8)
    listed = names or [f"crack/{i}.png" for i in range(k)]
    return Examples(listed, ["crack"] * k, images, truth if masks else None, maps, maps.max((1, 2)), 0.0, 1.0)


def cells(runs: list[Run], title: str) -> list[str]:
    table = summary_table(summarize(runs))
    place = [head.title for head in table.heads].index(title)
    return [row[place].line for row in table.rows]


class Page(HTMLParser):
    """Every start tag with its attributes, and the text of the page."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_runs_are_refused_with_the_cure() -> None:
    with pytest.raises(ReportError, match="compress sweep"):
        render([], [], "compress report runs/")
    with pytest.raises(ReportError):
        summarize([])


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


def test_what_int8_changes_is_not_told_without_its_float_twin() -> None:
    assert "int8 changes" not in " ".join(summary_text([run(), half(precision="int8")]))


def test_keys_that_do_not_differ_are_said_once() -> None:
    runs = [run(), half()]
    assert "precision" not in terminal_table(summarize(runs)).headers
    assert "precision" in terminal_table(summarize([*runs, half(precision="int8")])).headers
    assert "In every run: scope local" in " ".join(Page(render(runs, [], "x")["index.html"]).text.split())


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
    "runs",
    [
        [run()],
        [half()],
        [run(), half(), run(arch="mobilenet"), half(arch="mobilenet", dataset="elpv")],
        [Run({})],
        [Run({"arch": 3, "ratio": "half", "image_auroc": "0.9", "versions": "none", "seed": True}), run()],
        [run(image_auroc=None, pixel_auroc=None), half(image_auroc=None, pixel_auroc=None)],
        [run(image_auroc=0.0, macs_used=1e-320, file_bytes=-1), half(image_auroc=10**400, macs_used=1e300)],
        [run(arch="_under", dataset="$x_{$", category="\ud800\x00"), half(arch="_under", dataset="$x_{$")],
        [run(ratio=i / 20, method="magnitude", arch=f"net{i % 9}") for i in range(20)],
    ],
    ids=["origin", "no origin", "archs and datasets", "empty", "odd", "no AUROC", "zeros", "names", "many"],
)
def test_every_set_of_runs_makes_a_whole_report(runs: list[Run]) -> None:
    files = render(runs, [], "compress report runs/")
    assert {"report.md", "results.csv", "index.html"} <= files.keys()
    table = terminal_table(summarize(runs), brief=False)
    page = Page(files["index.html"])
    for attrs in (attrs for tag, attrs in page.tags if tag == "td" and attrs.get("class") == "number"):
        assert np.isfinite(float(attrs["data-sort"] or "nan"))
    for row in table.rows:
        assert len(row) == len(table.headers) == len(table.numeric)
        assert not {"nan", "None", "inf", ""} & set(row)


def test_a_row_without_fields_is_not_available_throughout() -> None:
    table = terminal_table(summarize([Run({"arch": "resnet18"})]), brief=False)
    assert table.rows == [["resnet18", *["n/a"] * (len(table.headers) - 1)]]


def test_without_an_origin_nothing_is_compared() -> None:
    assert cells([half()], "image AUROC") == ["0.940"]
    assert "No origin was run" in summary_text([half()])[0]


def test_csv_holds_every_field_unrounded() -> None:
    runs = [run(image_auroc=1 / 3, category='a, "b"\nc', extra=[1, 2]), half(aupro=None)]
    read = list(csv.DictReader(io.StringIO(render(runs, [], "x")["results.csv"].decode("utf-8"))))
    assert list(read[0]) == [*FIELDS, "extra"]
    assert float(read[0]["image_auroc"]) == 1 / 3
    assert read[0]["category"] == 'a, "b"\nc'
    assert json.loads(read[0]["versions"]) == ORIGIN["versions"]
    assert json.loads(read[0]["extra"]) == [1, 2]
    assert read[1]["aupro"] == ""
    assert set(ORIGIN) == set(FIELDS)


def test_names_are_escaped_everywhere() -> None:
    evil = "<script>alert(1)</script>\"'><img src=x>|`[a](http://x)"
    shown = example_images(names=[evil, evil + "2"])
    runs = [
        Run(ORIGIN | dict.fromkeys(("arch", "dataset", "category", "command", "machine", "scope"), evil), shown),
        half(versions={evil: evil}, method=evil),
    ]
    files = render(runs, [(evil, evil)], evil)
    page = Page(files["index.html"])
    scripts = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    assert scripts == ["application/json", None]  # the data, which is not run, and what draws it
    assert not [a for tag, a in page.tags if tag == "img" and not (a["src"] or "").startswith("data:image/")]
    assert evil in page.text
    assert evil.encode() not in files["index.html"]
    prose = re.sub(r"(?ms)^(`{3,})sh\n.*?^\1$", "", files["report.md"].decode())
    assert not re.search(r"(?<!\\)[<`]", prose)
    rows = [line for line in prose.splitlines() if line.startswith("| ")]
    table = summary_table(summarize(runs))
    assert rows[0].count("|") == len(table.heads) + 1
    assert rows[2].replace("\\|", "").count("|") == len(table.heads) + 1


def test_page_refers_to_nothing_outside_itself() -> None:
    html = render([run(example_images()), half(examples=example_images())], [("a", "b")], "x")["index.html"]
    for tag, attrs in Page(html).tags:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attrs.get(name) or "#").startswith(("data:", "#")), (tag, attrs)
        assert not [name for name in attrs if name.startswith("on")]
    for word in (b"@import", b"url(", b"http://", b"https://", b"fetch("):
        assert word not in html
    anchors = {attrs["href"] for tag, attrs in Page(html).tags if tag == "a"}
    ids = {f"#{attrs['id']}" for _, attrs in Page(html).tags if "id" in attrs}
    assert anchors <= ids


def test_sorting_contract() -> None:
    page = Page(render([run(aupro=None), half()], [], "x")["index.html"])
    heads = [attrs for tag, attrs in page.tags if tag == "th" and "aria-sort" in attrs]
    count = sum(len(table.heads) for table in (f(summarize([run(), half()])) for f in (summary_table, category_table)))
    assert len(heads) == count
    assert {attrs["aria-sort"] for attrs in heads} == {"none"}
    assert {attrs["data-type"] for attrs in heads} == {"number", "text"}
    values = [
        attrs.get("data-sort") for tag, attrs in page.tags if tag == "td" and "number" in (attrs.get("class") or "")
    ]
    assert None in values  # the missing AUPRO has no value to sort by
    assert "2782784.0" in values  # sorted by the value, not by "2.78 M"


def test_figures_are_real_pictures() -> None:
    files = render([run(), half(), half(ratio=0.9, macs_used=1e6)], [], "x")
    names = {name for name in files if name.startswith("figures/")}
    assert names == {
        *(f"figures/{name}.png" for name in ("image_auroc", "pixel_auroc", "aupro", "stage_times")),
        *(f"figures/tradeoff_{name}.png" for name in ("macs_used", "params_used", "ms_total", "file_bytes")),
    }
    for name in names:
        picture = Image.open(io.BytesIO(files[name]))
        assert picture.info["dpi"][0] == pytest.approx(144, abs=0.1)
        assert picture.width > 800
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50
        assert f"({name})" in files["report.md"].decode()


def test_no_figure_without_its_numbers() -> None:
    blank = dict.fromkeys(("pixel_auroc", "ms_features", "ms_embedding", "ms_search", "ms_scoring", "ms_total"))
    names = render([run(**blank)], [], "x").keys()
    assert "figures/pixel_auroc.png" not in names
    assert "figures/stage_times.png" not in names


def test_overlay_blends_by_heat() -> None:
    image = np.full((1, 4, 3), 100, np.uint8)
    values = np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)
    picture = overlay(image, values, low=0.0, high=1.0, strength=0.8)
    assert picture[0, 0].tolist() == [100, 100, 100]
    assert picture[0, 3].tolist() == [100, 100, 100]
    # at the top: 0.2 of the image and 0.8 of inferno's last colour, (252, 255, 164)
    assert picture[0, 2].tolist() == pytest.approx([0.2 * 100 + 0.8 * c for c in (252, 255, 164)], abs=1.5)
    moved = np.abs(picture.astype(int) - 100).sum(axis=2)[0]
    assert moved[0] < moved[1] < moved[2]
    assert (overlay(image, values, low=1.0, high=1.0) == image).all()
    assert (overlay(image, values * 100, low=-5.0, high=-1.0, strength=1.0)[0, 0] > 0).any()


def test_outline_lies_around_the_defect() -> None:
    image, mask = np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), bool)
    mask[4, 4] = True
    picture = outlined(image, mask, width=1)
    assert picture.any(axis=2).sum() == 4
    assert not picture[4, 4].any()
    assert not outlined(image, np.zeros((9, 9), bool)).any()


def test_thumbnails_keep_their_shape() -> None:
    shown = Image.open(io.BytesIO(jpeg(np.zeros((100, 400, 3), np.uint8), side=200)))
    assert shown.size == (200, 50)


def test_strips_show_every_run_in_order() -> None:
    with_masks = [half(examples=example_images()), run(example_images()), run(example_images(), seed=1)]
    html = render(with_masks, [], "x")["index.html"]
    page = Page(html)
    shots = [attrs["alt"] or "" for tag, attrs in page.tags if tag == "img" and "jpeg" in (attrs["src"] or "")]
    assert len(shots) == 2 * (2 + 2)  # two images: input, defect, origin, pruned; one seed
    assert "resnet18 origin" in shots[2]
    assert "resnet18 magnitude 0.5" in shots[3]
    without = render([run(example_images(masks=False))], [], "x")["index.html"]
    assert len([1 for tag, attrs in Page(without).tags if tag == "img" and "jpeg" in (attrs["src"] or "")]) == 2 * 2


def test_examples_must_fit_together() -> None:
    good = example_images()
    parts = {name: getattr(good, name) for name in Examples.__dataclass_fields__}
    for name, wrong in (("maps", good.maps[:1]), ("images", good.images[..., :1]), ("kinds", ["a"])):
        with pytest.raises(ReportError):
            Examples(**(parts | {name: wrong}))
    with pytest.raises(ReportError, match="uint8"):
        Examples(**(parts | {"images": good.images.astype(np.float32)}))


def test_failures_are_listed() -> None:
    files = render([run()], [("lost.json", "left out: not a row of results")], "x")
    for name in ("report.md", "index.html"):
        assert "lost.json" in files[name].decode()
    assert "Left out" not in render([run()], [], "x")["report.md"].decode()


def test_a_report_is_the_same_each_time() -> None:
    runs = [run(example_images()), half(examples=example_images())]
    assert render(runs, [], "x") == render(runs, [], "x")


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


def test_bars_are_the_deviation_between_seeds() -> None:
    def bars(runs: list[Run]) -> int:
        (picture,) = [each for each in figures(summarize(runs)) if each.name == "image_auroc"]
        assert ("bars are the deviation" in picture.description) == bool(picture.figure.axes[0].containers)
        return len(picture.figure.axes[0].containers)

    pruned = [half(), half(seed=1, image_auroc=0.9)]
    assert bars([run(), *pruned]) == 1
    assert bars([run(), pruned[0]]) == 0


def test_a_pixel_curve_has_points() -> None:
    for pixels in (np.zeros((4, 0), np.float32), np.zeros((4, 1), np.float32), np.zeros((4, 8), np.int64)):
        with pytest.raises(ReportError, match="4 rows of 2 or more finite floats"):
            Scores(["a"], np.array([True]), np.zeros(1), np.zeros((1, 2, 2), np.uint8), 0.0, 1.0, pixels)
