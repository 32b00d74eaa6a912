"""The files of a comparison of a few ways to do one thing: choices.md, .csv, .json and a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from compress.files import atomic_write
from reports.choices import Choice, choices_csv, choices_figure, choices_markdown
from reports.columns import Column
from reports.errors import ReportError


def write_choices(
    folder: Path,
    choices: Sequence[Choice],
    columns: Sequence[Column],
    costs: Sequence[Column],
    *,
    head: str,
    title: str,
    made_by: Mapping[str, object],
) -> None:
    """Write table, values and figure to `folder`; `head` names what is chosen, `made_by` how it was measured."""
    notes = ", ".join(f"{name}: {value}" for name, value in made_by.items())
    records = [{head: choice.name, **choice.values} for choice in choices]
    atomic_write(folder / "choices.md", choices_markdown(choices, columns, head=head, title=title, notes=notes))
    atomic_write(folder / "choices.csv", choices_csv(choices, columns, head=head))
    atomic_write(folder / "choices.json", json.dumps({**made_by, "choices": records}, indent=1) + "\n")
    try:
        pictures = choices_figure(choices, costs, title=title)
    except ReportError:  # good images alone have no AUROC to draw; the table has the times
        return
    for name, content in pictures.items():
        atomic_write(folder / name, content)
