"""The page in a real browser, opened from its path: it draws, sorts, filters, tells, and fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, browser
from report_rows import HALF, ORIGIN, example_images, tangle

from reports import Run, Scores, render

pytestmark = pytest.mark.browser

EVIL = "</script><script>document.title='owned'</script>"


def scored(seed: int, clear: float) -> Scores:
    """40 images; defective ones lie `clear` deviations above good ones."""
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % 2 == 0
    scores = (rng.normal(size=40) + clear * labels).astype(np.float32)
    rising = np.linspace(0, 1, 20)
    pixels = np.stack([rising, rising**0.3, 1 - rising / 2, rising**0.4]).astype(np.float32)
    names = [f"crack/{index}.png" for index in range(40)]
    return Scores(names, labels, scores, rng.integers(0, 255, (40, 6, 8)).astype(np.uint8), 0.0, 1.0, pixels)


def runs(category: str, offset: float) -> list[Run]:
    rows: list[tuple[dict[str, Any], float]] = [
        ({}, 3.0),
        (HALF | {"ratio": 0.3, "image_auroc": 0.93, "aupro": None, "macs_used": 7e8}, 2.5),
        (HALF | {"image_auroc": 0.9, "aupro": 0.9}, 2.0),
        (HALF | {"ratio": 0.7, "image_auroc": 0.8, "method": EVIL, "aupro": 0.1, "macs_used": 1e8}, 1.0),
    ]
    return [
        Run(
            ORIGIN | row | {"category": category, "image_auroc": row.get("image_auroc", 0.95) - offset},
            example_images(names=["crack/0.png", "crack/1.png"]),
            scored(place, clear - 20 * offset),
        )
        for place, (row, clear) in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "index.html"
    file.write_bytes(render([*runs("bottle", 0.0), *runs("cable", 0.02)], [("lost.json", EVIL)], "x")["index.html"])
    return file


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)], ids=["light", "dark", "phone"])
def test_the_page_draws_without_a_complaint(chromium: Browser, page: Path, width: int, dark: bool) -> None:
    chromium.open(page, width=width, dark=dark)
    assert not chromium.complaints
    assert chromium.run("document.title") == "What each compression cost - prunecore"
    assert chromium.run("document.documentElement.scrollWidth") <= width
    drawn = chromium.run(
        "[...document.querySelectorAll('#figures figure')].map((each) => [each.dataset.kind, ...['svg', 'img',"
        "'svg :is(.point, .line, .bar)'].map((what) => each.querySelectorAll(what).length)])"
    )
    kinds = [kind for kind, *_ in drawn]
    assert sorted(set(kinds)) == ["curve", "ratio", "stages", "tradeoff"]
    assert (kinds.count("curve"), kinds.count("tradeoff"), kinds.count("ratio")) == (4, 4, 3)
    assert all(svgs == 1 and images == 0 and marks >= 2 for _, svgs, images, marks in drawn)
    outside = "[...document.querySelectorAll('figure svg')].filter((s) => s.getBoundingClientRect().right > innerWidth)"
    assert chromium.run(f"{outside}.length") == 0
    ground = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground[4:-1].split(",")) < 200) == dark
    assert len(page.read_bytes()) < 2_000_000


def test_a_heading_sorts_and_what_is_missing_stays_last(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    column = (
        "(() => { const head = [...document.querySelectorAll('#results_table th')]"
        ".find((th) => th.textContent.startsWith('AUPRO')); head.firstElementChild.click();"
        "return [...document.querySelectorAll('#results_table tbody tr')]"
        ".map((row) => row.cells[head.cellIndex].firstChild.textContent).join(' '); })()"
    )
    assert chromium.run(column) == "0.900 0.600 0.100 n/a"
    assert chromium.run(column) == "0.100 0.600 0.900 n/a"


def test_words_filter_the_rows(chromium: Browser, page: Path) -> None:
    chromium.open(page)

    def filtered(words: str) -> list[Any]:
        found = chromium.run(
            "(() => { const label = document.querySelector('.filter[data-table=results_table]');"
            f"const input = label.querySelector('input'); input.value = {words!r};"
            "input.dispatchEvent(new Event('input'));"
            "return [label.querySelector('output').textContent,"
            "[...document.querySelectorAll('#results_table tbody tr')].filter((row) => row.offsetHeight).length]; })()"
        )
        return list(found)

    assert filtered("") == ["", 4]
    assert filtered("magnitude 0.5") == ["1 of 4", 1]
    assert filtered("MAGNITUDE") == ["2 of 4", 2]
    assert filtered("nothing") == ["0 of 4", 0]


def test_a_point_is_told_to_the_pointer_and_to_the_keys(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    at = chromium.run(
        "(() => { const figure = document.querySelector('figure[data-of=macs_used]');"
        "figure.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const box = [...figure.querySelectorAll('svg .point')][1].getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    tip = "document.querySelector('figure[data-of=macs_used] .tip')"
    assert chromium.run(f"{tip}.hidden") is True
    chromium.point(at[0] + 3, at[1] + 2)
    told = chromium.run(f"{tip}.innerText")
    assert chromium.run(f"{tip}.hidden") is False
    assert EVIL[:20] in told  # a name from a file, as text
    assert "0.790 (-0.150" in told.replace("\n", " ")
    assert "95 % interval" in told
    chromium.point(2, 2)
    assert chromium.run(f"{tip}.hidden") is True
    chromium.run("document.querySelector('figure[data-of=macs_used] svg').focus()")
    chromium.press("ArrowRight")
    first = chromium.run(f"{tip}.innerText")
    assert first.startswith("resnet18 origin")
    chromium.press("ArrowRight")
    assert chromium.run(f"{tip}.innerText") != first
    chromium.press("Escape")
    assert chromium.run(f"{tip}.hidden") is True


def test_series_ratio_and_category_are_chosen(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    points = "document.querySelectorAll('figure[data-of=macs_used] .point').length"
    lines = "document.querySelectorAll('figure[data-of=roc] .line').length"
    assert (chromium.run(points), chromium.run(lines)) == (4, 2)  # the origin, and the method that has 0.5
    chromium.run("document.querySelector('#controls .chips button:nth-child(3)').click()")
    assert chromium.run(points) == 2
    assert chromium.run("document.querySelectorAll('.chips [aria-pressed=false]').length") == 2  # both legends agree
    chromium.run("document.querySelector('#controls .chips button:nth-child(3)').click()")
    choose = (
        "(() => {{ const select = document.querySelectorAll('#curve-controls select')[{place}];"
        "select.value = {value!r};"
        "select.dispatchEvent(new Event('change')); }})()"
    )
    chromium.run(choose.format(place=1, value=""))
    assert chromium.run(lines) == 4
    drawn = "document.querySelector('figure[data-of=roc] .line').getAttribute('d')"
    mean = chromium.run(drawn)
    chromium.run(choose.format(place=0, value="cable"))
    assert chromium.run(drawn) not in ("", mean)
    assert not chromium.complaints


def test_a_foreign_script_does_not_run(chromium: Browser, page: Path, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(page.read_text().replace("</body>", "<script>document.title = 'owned'</script></body>"))
    chromium.open(file)
    assert chromium.run("document.title") != "owned"
    assert "Content Security Policy" in str(chromium.complaints)


def test_without_its_script_the_page_still_shows_all(chromium: Browser, page: Path) -> None:
    chromium.send("Emulation.setScriptExecutionDisabled", {"value": True})
    chromium.open(page)
    still = chromium.send("DOM.getDocument", {"depth": -1})["root"]["nodeId"]
    found = {
        what: len(chromium.send("DOM.querySelectorAll", {"nodeId": still, "selector": what})["nodeIds"])
        for what in ("#figures img", "#results_table tbody tr", ".strip img", "#figures svg")
    }
    chromium.send("Emulation.setScriptExecutionDisabled", {"value": False})
    assert found["#figures img"] == 9  # four costs, three metrics, stages, curves
    assert found["#results_table tbody tr"] == 4
    assert found[".strip img"] > 10
    assert found["#figures svg"] == 0


def test_a_tangle_of_lines_is_shown_one_treatment_at_a_time(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_bytes(render(tangle(), [], "x")["index.html"])
    chromium.open(file)
    told = (
        "(() => { const figure = document.querySelector('figure[data-of=image_auroc]');"
        "const text = (all) => [...all].map((each) => each.textContent).join(' ');"
        "return [text(document.querySelectorAll('#controls .chips button')), figure.querySelectorAll('.point').length,"
        "text(figure.querySelectorAll('.tick'))]; })()"
    )
    chips, points, ticks = chromium.run(told)
    assert (chips, points) == ("origin fp32 dense int8 batch_norm lcp magnitude", 8)
    chosen = "document.querySelector('#controls select')"
    assert chromium.run(f"{chosen}.selectedOptions[0].text") == "distill, fp32"
    chromium.run(f"(() => {{ {chosen}.focus(); {chosen}.value = 2; {chosen}.dispatchEvent(new Event('change')); }})()")
    assert chromium.run(f"document.activeElement === {chosen}"), "the arrow keys go through the treatments"
    assert chromium.run(told) == [chips, 8, ticks]  # on the same scale
    chromium.run("document.querySelector('#controls .chips button:last-child').click()")
    chromium.run(f"(() => {{ {chosen}.value = 0; {chosen}.dispatchEvent(new Event('change')); }})()")
    assert chromium.run(told)[1] == 6, "hidden there too"
    assert chromium.run("document.querySelectorAll('figure.wide[data-kind=ratio]').length") == 0
    assert not chromium.complaints


def test_a_dataset_has_the_treatments_that_it_was_run_with(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    elsewhere = [Run(ORIGIN | HALF | {"dataset": "elsewhere", "method": name}) for name in ("lcp", "magnitude")]
    file.write_bytes(render([*tangle(), *elsewhere], [], "x")["index.html"])
    chromium.open(file)
    pickers = "[...document.querySelectorAll('#controls label')].map((each) => each.firstChild.textContent)"
    data = "document.querySelector('#controls select')"
    points = "document.querySelectorAll('figure[data-of=image_auroc] .point').length"
    for dataset, offered, shown in (("elsewhere", False, 2), ("tiles", True, 8)):
        chromium.run(f"(() => {{ {data}.value = '{dataset}'; {data}.dispatchEvent(new Event('change')); }})()")
        assert ("after the cut" in chromium.run(pickers)) == offered
        assert chromium.run(points) == shown
    assert not chromium.complaints
