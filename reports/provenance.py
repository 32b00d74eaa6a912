"""What made the numbers: the commands, the versions, the machine, the data and the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.groups import Row, setting_of
from reports.runs import NA, Run, one_line, plural, text
from reports.summary import Summary


@dataclass(frozen=True)
class Provenance:
    """`sentence` says what was run in all; `facts` are (name, value); `commands` are (label, command)."""

    sentence: str
    facts: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]


def provenance(runs: Sequence[Run], summary: Summary) -> Provenance:
    rows = [run.row for run in runs]
    return Provenance(_sentence(rows, summary), tuple(_facts(rows)), tuple(_commands(rows, summary)))


def _sentence(rows: Sequence[Row], summary: Summary) -> str:
    archs, datasets = (len(_distinct(rows, name)) for name in ("arch", "dataset"))
    categories = len({(text(row, "dataset"), text(row, "category")) for row in rows})
    parts = [
        plural(len(rows), "run", "runs"),
        plural(len(summary.groups), "setting", "settings"),
        plural(archs, "backbone", "backbones"),
        plural(datasets, "dataset", "datasets"),
        plural(categories, "category", "categories"),
    ]
    return f"{', '.join(parts)}."


def _facts(rows: Sequence[Row]) -> Iterable[tuple[str, str]]:
    for name in sorted({name for row in rows for name in _versions(row)}):
        found = {_versions(row)[name] for row in rows if name in _versions(row)}
        yield f"version of {name}", ", ".join(sorted(found))
    for name, title in (("machine", "machine"), ("threads", "threads"), ("seed", "seeds")):
        if values := _distinct(rows, name):
            yield title, ", ".join(values)
    for dataset, category in sorted({(text(row, "dataset"), text(row, "category")) for row in rows}):
        here = [row for row in rows if (text(row, "dataset"), text(row, "category")) == (dataset, category)]
        if values := _distinct(here, "data_fingerprint"):
            yield f"data {dataset}, {category}", ", ".join(values)
    for arch in _distinct(rows, "arch"):
        here = [row for row in rows if text(row, "arch") == arch]
        values = [*_distinct(here, "weights_source"), *_distinct(here, "weights_fingerprint")]
        if values:
            yield f"weights of {arch}", ", ".join(values)


def _versions(row: Row) -> dict[str, str]:
    versions = row.get("versions")
    if not isinstance(versions, Mapping):
        return {}
    return {one_line(str(name)): one_line(str(value)) for name, value in versions.items()}


def _commands(rows: Sequence[Row], summary: Summary) -> Iterable[tuple[str, str]]:
    seen = set()
    for row in rows:
        command = text(row, "command")
        if command != NA and command not in seen:
            seen.add(command)
            place = [text(row, name) for name in ("dataset", "category") if text(row, name) != NA]
            yield ", ".join([setting_of(row).label(summary.shown), *place, f"seed {text(row, 'seed')}"]), command


def _distinct(rows: Iterable[Row], name: str) -> list[str]:
    return sorted({text(row, name) for row in rows} - {NA})
