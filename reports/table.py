"""The tables of a report as plain data, which Markdown, HTML and the terminal each draw in their own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reports.columns import COLUMNS, KEYS, Better, Column, Difference, Factor, Where
from reports.groups import Change, Group
from reports.runs import NA, plural
from reports.summary import Summary
from reports.text_table import TextTable

ONE, NO_CHANGE = "1 category", "0.000"
TIE = (
    "A tie is a difference within its noise: zero lies in its 95 % interval (paired bootstrap over the test images), "
    "or seeds differ as much (Student's t, pooled over the settings)."
)
Tone = Literal["better", "worse", "even"]


@dataclass(frozen=True)
class Cell:
    """`sort` is the unrounded value to sort by, None for n/a; `notes` are said small, each with a tone."""

    text: str
    sort: float | str | None
    notes: tuple[tuple[Tone, str], ...] = ()

    @property
    def line(self) -> str:
        """The cell in one line.

        >>> Cell("0.849", 0.849, (("worse", "-0.028"),)).line
        '0.849 (-0.028)'
        """
        return f"{self.text} ({', '.join(note for _, note in self.notes)})" if self.notes else self.text


@dataclass(frozen=True)
class Head:
    title: str
    help: str
    numeric: bool
    better: Better | None = None


@dataclass(frozen=True)
class Table:
    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]
    origins: tuple[bool, ...]  # per row: is it the one the others are compared with

    @property
    def text(self) -> TextTable:
        """Each cell in one line."""
        return TextTable(
            [head.title for head in self.heads],
            [[cell.line for cell in row] for row in self.rows],
            [head.numeric for head in self.heads],
        )


def summary_table(summary: Summary, *, brief: bool = False) -> Table:
    """One row per setting: means over categories and seeds."""
    columns = [c for c in COLUMNS if (Where.BRIEF if brief else Where.SUMMARY) in c.where]
    several = len({_basis_cell(g).text for g in summary.groups}) > 1
    rows = [
        (
            *_setting_cells(summary, group),
            *(value_cell(summary, group, c) for c in columns),
            *([_basis_cell(group)] if several else []),
        )
        for group in summary.groups
    ]
    basis = [Head("mean over", "The categories and seeds behind each mean.", numeric=False)] if several else []
    heads = (*_setting_heads(summary), *(_head(c) for c in columns), *basis)
    return Table(heads, tuple(rows), tuple(summary.is_origin(g) for g in summary.groups))


def category_table(summary: Summary) -> Table:
    """One row per setting and category: means over seeds."""
    columns = [c for c in COLUMNS if Where.CATEGORY in c.where]
    several = any(len(g.seeds) > 1 for g in summary.groups)
    groups = summary.parts
    rows = [
        (
            *_setting_cells(summary, group),
            Cell(group.categories[0], group.categories[0]),
            *(value_cell(summary, group, c) for c in columns),
            *([Cell(", ".join(group.seeds), float(len(group.seeds)))] if several else []),
        )
        for group in groups
    ]
    category = Head("category", "The kind of object within the data.", numeric=False)
    seeds = [Head("seeds", "The seeds behind each mean.", numeric=True)] if several else []
    heads = (*_setting_heads(summary), category, *(_head(c) for c in columns), *seeds)
    return Table(heads, tuple(rows), tuple(summary.is_origin(g) for g in groups))


def tells_ties(summary: Summary) -> bool:
    """Whether anything is known of the noise, so that a difference may be called a tie."""
    return bool(summary.differences) or any(len(group.seeds) > 1 for group in summary.groups)


def means_table(summary: Summary, column: Column) -> Table | None:
    """One metric as a row per setting and a column per category, with the mean; None where no setting has two."""
    names = sorted({name for group in summary.groups for name in group.per_category(column.name)})
    if len(names) < 2:
        return None
    groups = [group for group in summary.groups if group.mean(column.name)]
    heads = [Head(name, f"{column.title} on this category.", numeric=True, better=column.better) for name in names]
    mean = Head("mean", f"{column.title}, mean over the categories.", numeric=True, better=column.better)
    rows = []
    for group in groups:
        values = group.per_category(column.name)
        cells = [Cell(column.format(values[n]), values[n]) if n in values else Cell(NA, None) for n in names]
        rows.append((*_setting_cells(summary, group), *cells, value_cell(summary, group, column)))
    return Table((*_setting_heads(summary), *heads, mean), tuple(rows), tuple(summary.is_origin(g) for g in groups))


def value_cell(summary: Summary, group: Group, column: Column) -> Cell:
    """The mean of a setting, and how it stands to its origin."""
    mean = group.mean(column.name)
    if mean is None:
        return Cell(NA, None)
    notes: list[tuple[Tone, str]] = []
    change = summary.change(group, column)
    told = _told(change, column) if change else None
    if change and told:
        tied = isinstance(column.compare, Difference) and told != NO_CHANGE and summary.tie(group, column.name)
        notes.append(("even", f"{told}, a tie") if tied else (_tone(change, column, told), told))
        if change.categories < len(group.categories):
            notes.append(("even", f"compared on {change.categories}"))
    if mean.spread is not None and isinstance(column.compare, Difference):
        notes.append(("even", f"±{column.format(mean.spread)}"))
    if mean.categories < len(group.categories):
        notes.append(("even", f"{mean.categories} of {len(group.categories)} categories"))
    return Cell(column.format(mean.value), mean.value, tuple(notes))


def same_everywhere(summary: Summary) -> list[tuple[str, str]]:
    """The (key, value) pairs left out of the tables because no run differs in them."""
    pruned = [g for g in summary.groups if not g.setting.dense] or list(summary.groups)
    pairs = [(k.title, str(getattr(pruned[0].setting, k.name))) for k in KEYS if k.name not in summary.shown]
    bases = {_basis_cell(group).text for group in summary.groups}
    pairs += [("mean over", basis) for basis in bases if len(bases) == 1 and basis != ONE]
    return [(title, value) for title, value in pairs if value != NA]


def factor_text(change: Change, words: Factor) -> str | None:
    """
    >>> factor_text(Change(11.69e6, 3.06e6, 1), Factor("fewer", "more"))
    '3.8x fewer'
    >>> factor_text(Change(10.0, 15.0, 1), Factor("faster", "slower")), factor_text(Change(1, 1, 1), Factor("-", "-"))
    ('1.5x slower', None)
    """
    factor = change.factor
    if factor is None or round(max(factor, 1 / factor), 1) == 1.0:
        return None
    return f"{factor:.1f}x {words.lower}" if factor > 1 else f"{1 / factor:.1f}x {words.higher}"


def difference_text(difference: float) -> str:
    """
    >>> difference_text(-0.0281), difference_text(0.0049), difference_text(-0.0001)
    ('-0.028', '+0.005', '0.000')
    """
    told = f"{difference:+.3f}"
    return NO_CHANGE if float(told) == 0 else told


def _setting_heads(summary: Summary) -> list[Head]:
    return [Head(k.title, k.help, numeric=k.name == "ratio") for k in KEYS if k.name in summary.shown]


def _setting_cells(summary: Summary, group: Group) -> list[Cell]:
    cells = []
    for key in KEYS:
        value = getattr(group.setting, key.name)
        if key.name == "ratio":
            cells.append(Cell(group.setting.ratio_text, value))
        elif key.name in summary.shown:
            cells.append(Cell(value, None if value == NA else value))
    return cells


def _head(column: Column) -> Head:
    return Head(column.title, column.help, numeric=True, better=column.better)


def _basis_cell(group: Group) -> Cell:
    categories, seeds = len(group.categories), len(group.seeds)
    parts = [plural(categories, "category", "categories"), plural(seeds, "seed", "seeds")]
    return Cell(" x ".join(parts) if seeds > 1 else parts[0], float(categories * seeds))


def _told(change: Change, column: Column) -> str | None:
    if isinstance(column.compare, Factor):
        return factor_text(change, column.compare)
    return difference_text(change.difference) if isinstance(column.compare, Difference) else None


def _tone(change: Change, column: Column, told: str) -> Tone:
    if told == NO_CHANGE:
        return "even"
    return "better" if (change.difference > 0) == (column.better == "higher") else "worse"
