"""The report as one HTML file that loads nothing: style, script and pictures are inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.cautions import cautions
from reports.figures import Picture
from reports.heatmap import colour_bar
from reports.provenance import Provenance
from reports.runs import one_line
from reports.strips import Strip
from reports.summary import Summary
from reports.table import category_table, same_everywhere, summary_table
from reports.words import findings

TEMPLATES = Path(__file__).parent / "templates"
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
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        script=Markup(script),  # noqa: S704 - a file of this package
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        scale=", ".join(colour_bar()),
        verdicts=VERDICTS,
        facts=facts,
        findings=findings(summary),
        cautions=cautions(summary),
        same=same_everywhere(summary),
        tables=[
            ("results", "Results", summary_table(summary)),
            ("categories", "Results per category", category_table(summary)),
        ],
        pictures=[(picture, base64.b64encode(picture.png).decode("ascii")) for picture in pictures],
        strips=examples,
        failures=[(one_line(name), one_line(reason)) for name, reason in failures],
        command=one_line(command),
    )
