"""The files of a report: whole for whatever runs there are, escaped, and the same each time."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from html_page import Page
from report_rows import ORIGIN, example_images, half, run

from reports import ReportError, Run, render, terminal_table
from reports.frame import FIELDS
from reports.summary import summarize
from reports.table import category_table, summary_table


def test_no_runs_are_refused_with_the_cure() -> None:
    with pytest.raises(ReportError, match="compress sweep"):
        render([], [], "compress report runs/")
    with pytest.raises(ReportError):
        summarize([])


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


def test_failures_are_listed() -> None:
    files = render([run()], [("lost.json", "left out: not a row of results")], "x")
    for name in ("report.md", "index.html"):
        assert "lost.json" in files[name].decode()
    assert "Left out" not in render([run()], [], "x")["report.md"].decode()


def test_a_report_is_the_same_each_time() -> None:
    runs = [run(example_images()), half(examples=example_images())]
    assert render(runs, [], "x") == render(runs, [], "x")
