"""The report as one HTML file that loads nothing: style, script and pictures are inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.cautions import cautions
from reports.columns import column
from reports.figures import METRICS, Picture
from reports.heatmap import colour_bar
from reports.page_data import page_data
from reports.provenance import Provenance
from reports.runs import one_line
from reports.strips import Strip
from reports.summary import Summary
from reports.table import TIE, category_table, means_table, same_everywhere, summary_table, tells_ties
from reports.words import findings

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("tables.js", "plot.js", "figures.js")
PARTS = (
    (
        "tradeoff",
        "Accuracy against cost",
        "Up is more accurate, left is cheaper; no setting beats one on the dashed line.",
    ),
    (
        "ratio",
        "Accuracy against the ratio",
        "The dotted line is the unpruned network; bars are the deviation between seeds.",
    ),
    ("stages", "Time", "One image at a time, from decoded pixels to the score."),
    (
        "curves",
        "Curves",
        "Means over categories, taken upright, of the unpruned networks and each method at one ratio.",
    ),
)
VERDICTS = {
    "holds": "accuracy holds",
    "costs": "costs accuracy",
    "fails": "strong loss",
    "open": "nothing to compare",
}


def report_html(
    summary: Summary,
    pictures: Sequence[Picture],
    examples: Sequence[Strip],
    facts: Provenance,
    failures: Sequence[tuple[str, str]],
    command: str,
) -> str:
    """The page. Every name in it comes from files of unknown origin: all are escaped, and its policy lets no script
    run but its own (by hash)."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = '"use strict";\n' + "\n".join(parts)
    means = [(name, means_table(summary, column(name))) for name in METRICS]
    return environment.get_template("report.html.j2").render(
        script=Markup(script),  # noqa: S704 - a file of this package
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        scale=", ".join(colour_bar()),
        verdicts=VERDICTS,
        facts=facts,
        findings=findings(summary),
        cautions=cautions(summary),
        same=same_everywhere(summary),
        tie=TIE if tells_ties(summary) else "",
        results=summary_table(summary),
        means=[(f"means_{name}", column(name).title, table) for name, table in means if table],
        categories=category_table(summary),
        data=page_data(summary),
        figure_parts=PARTS,
        cases=any(row.role for strip in examples for row in strip.rows),
        pictures=[(picture, base64.b64encode(picture.svg(outlines=False)).decode("ascii")) for picture in pictures],
        strips=examples,
        failures=[(one_line(name), one_line(reason)) for name, reason in failures],
        command=one_line(command),
    )
