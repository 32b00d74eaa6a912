"""compress status."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import AsJson
from pipelines.console import minutes, print_line, print_table, refuse_in_one_line


@refuse_in_one_line
def status(
    runs: Annotated[Path, typer.Argument(help="A folder of results, made by compress sweep.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """What of the sweeps into a folder is done, running, failed (and why), interrupted or waiting.

    compress status runs/
    """
    from pipelines.status import STATES, folder_status

    found = folder_status(runs)
    if as_json:
        described = {**dataclasses.asdict(found), "counts": found.counts}
        print_line(json.dumps(described, indent=1))
        return
    order = {state: place for place, state in enumerate(STATES)}
    rows = [
        (run.name, run.state, run.started or "", minutes(run.seconds), run.reason or "")
        for run in sorted(found.runs, key=lambda run: order[run.state])
    ]
    print_table(["run", "state", "started (UTC)", "took", "reason"], rows)
    print_line(", ".join(f"{count} {state}" for state, count in found.counts.items() if count))
    for command in found.going_on or ("none",):
        print_line(f"going on: {command}")
