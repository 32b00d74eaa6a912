"""The pictures of a report: figures, heatmaps over images, and the strips of examples."""

from __future__ import annotations

import io

import numpy as np
import pytest
from html_page import Page
from PIL import Image
from report_rows import example_images, half, run, tangle

from reports import Examples, ReportError, Run, Scores, outlined, overlay, render
from reports.figures import figures
from reports.heatmap import jpeg
from reports.series import Treatment, by_preference, is_in, panels, series_of, styles
from reports.summary import summarize


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


def test_bars_are_the_deviation_between_seeds() -> None:
    def bars(runs: list[Run]) -> int:
        (picture,) = [each for each in figures(summarize(runs)) if each.name == "image_auroc"]
        assert ("bars are the deviation" in picture.description) == bool(picture.figure.axes[0].containers)
        return len(picture.figure.axes[0].containers)

    pruned = [half(), half(seed=1, image_auroc=0.9)]
    assert bars([run(), *pruned]) == 1
    assert bars([run(), pruned[0]]) == 0


def test_more_lines_than_colours_get_a_panel_for_each_treatment() -> None:
    summary = summarize(tangle())
    none, recovered, quantized = Treatment("none", "fp32"), Treatment("distill", "fp32"), Treatment("distill", "int8")
    assert panels(summary) == (none, recovered, quantized)
    assert by_preference(summary) == [recovered, quantized, none]
    assert [panel.title(summary.shown) for panel in panels(summary)] == [
        "no recovery, fp32",
        "distill, fp32",
        "distill, int8",
    ]
    members = [[group for group in summary.groups if is_in(group, panel)] for panel in panels(summary)]
    assert [len(each) for each in members] == [8, 8, 8]  # the two dense networks in each
    looks = styles(summary)
    labels = {looks[series_of(group)].label for group in members[0]}
    assert labels == {"origin fp32", "dense int8", "magnitude", "lcp", "batch_norm"}
    assert {looks[series_of(group)] for group in members[1]} == {looks[series_of(group)] for group in members[0]}


def test_few_lines_share_a_panel() -> None:
    summary = summarize(tangle(("magnitude", "lcp")))
    assert panels(summary) == ()
    assert by_preference(summary) == []
    assert all(is_in(group, None) for group in summary.groups)
    assert len(set(styles(summary).values())) == 8, "an own look for each"


def test_one_treatment_for_each_method_needs_no_panels() -> None:
    slim = [half(method=f"method{number}", recover=f"recovery{number}") for number in range(9)]
    assert panels(summarize([run(), *slim])) == ()


def test_rows_without_a_recovery_are_not_recovered() -> None:
    """Rows of earlier versions have no such field."""
    old = [half(method=method, recover=None) for method in ("random", "taylor")]
    assert panels(summarize([*tangle(), *old])) == panels(summarize(tangle()))


def test_a_panel_without_runs_is_empty() -> None:
    elsewhere = [half(dataset="elsewhere", method=method, recover="none") for method in ("magnitude", "lcp")]
    drawn = {picture.name: picture.figure for picture in figures(summarize([*tangle(), *elsewhere]))}
    for name in ("image_auroc", "tradeoff_file_bytes", "tradeoff_ms_total"):
        titles = [axes.get_title(loc="left") for axes in drawn[name].axes]
        treatments = ("no recovery, fp32", "distill, fp32", "distill, int8")
        assert titles == [f"{dataset}: {each}" for dataset in ("elsewhere", "tiles") for each in treatments]


def test_the_scale_of_the_panels_has_room_for_all_of_them() -> None:
    far = half(method="lcp", ratio=0.9, recover="none", image_auroc=0.6, file_bytes=100_000, macs_used=1e7)
    drawn = {picture.name: picture.figure for picture in figures(summarize([*tangle(), far]))}
    for name, values in (("image_auroc", (0, 0.9)), ("tradeoff_file_bytes", (1e5, 11.2e6))):
        for axes in drawn[name].axes:
            low, high = axes.get_xlim()
            assert low < values[0] < values[1] < high
        assert len({axes.get_xscale() for axes in drawn[name].axes}) == 1


def test_curves_are_those_of_a_treatment_that_has_scores() -> None:
    labels = np.arange(20) % 2 == 0
    heat = np.zeros((20, 6, 8), np.uint8)
    scores = Scores([f"{n}.png" for n in range(20)], labels, np.arange(20, dtype=np.float32), heat, 0.0, 1.0, None)
    runs = [
        Run(each.row, None, scores if each.row["recover"] == "none" and each.row["ratio"] else None)
        for each in tangle()
    ]
    (curves,) = [picture for picture in figures(summarize(runs)) if picture.kind == "curves"]
    assert curves.title.endswith("on tiles: no recovery, fp32")
    (legend,) = curves.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["batch_norm 0.5", "lcp 0.5", "magnitude 0.5"]


def test_panels_have_one_scale_and_a_legend_within_the_figure() -> None:
    long = tuple(f"a_method_of_a_rather_long_name_{number}" for number in range(9))
    for runs in (tangle(), tangle(long), [run(), *(half(method=method) for method in long)]):
        drawn = {picture.name: picture.figure for picture in figures(summarize(runs))}
        for name in ("image_auroc", "tradeoff_macs_used"):
            figure = drawn[name]
            ranges = {(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}
            assert (len(figure.axes), len(ranges)) == (3 if len(runs) > 10 else 1, 1)
            (legend,) = figure.legends
            assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_a_pixel_curve_has_points() -> None:
    for pixels in (np.zeros((4, 0), np.float32), np.zeros((4, 1), np.float32), np.zeros((4, 8), np.int64)):
        with pytest.raises(ReportError, match="4 rows of 2 or more finite floats"):
            Scores(["a"], np.array([True]), np.zeros(1), np.zeros((1, 2, 2), np.uint8), 0.0, 1.0, pixels)


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
