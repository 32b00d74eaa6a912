"""Two settings side by side, with what chance could make of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from reports.columns import COLUMNS, Column, Difference, Factor, column
from reports.errors import ReportError
from reports.markdown import escape
from reports.noise import image_difference
from reports.runs import NA, Run, text
from reports.significance import RESAMPLES
from reports.significance import Difference as Bootstrapped
from reports.summary import Change, Group, summarize
from reports.table import difference_text, factor_text
from reports.terminal import TextTable

_AUROC = "image_auroc"


@dataclass(frozen=True, eq=False)
class Comparison:
    """`second` against `first`, over the `categories` of both.

    Attributes:
        names: what the two are called.
        changes: by the name of a column, where both have a value.
        difference: of the image AUROC, over all categories; None where there are no scores of the same images.
        per_category: the same for each category alone.
    """

    names: tuple[str, str]
    first: Group
    second: Group
    categories: tuple[str, ...]
    changes: dict[str, Change]
    difference: Bootstrapped | None
    per_category: dict[str, Bootstrapped | None]
    resamples: int
    seed: int

    @property
    def verdict(self) -> str:
        """What may be said of the image AUROC, in one sentence."""
        if self.difference is None:
            if _AUROC not in self.changes:
                return "Nothing is said of the image AUROC: it was not measured in both."
            told = difference_text(self.changes[_AUROC].difference)
            return (
                f"The image AUROC differs by {told}; whether that is chance is not known, for the scores of the test "
                "images are not beside both rows: run both again with this version."
            )
        found = self.difference
        interval = f"95 % interval {difference_text(found.low)} to {difference_text(found.high)}, p = {found.p:.2g}"
        made = f"{found.images} images, {self.resamples:,} paired resamples, seed {self.seed}"
        who, how = self.names[1], "better" if found.value > 0 else "worse"
        judged = "a tie: chance may have made it" if found.tie else f"{who} is {how}"
        return f"The image AUROC differs by {difference_text(found.value)} ({interval}; {made}): {judged}."


def compare_runs(
    first: Sequence[Run],
    second: Sequence[Run],
    names: tuple[str, str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare the runs of one setting with those of another, over the categories of both; several seeds are averaged.

    Raises:
        ReportError: several settings on one side, no common category, or one that the two saw with other data.
    """
    one, other = (_only_setting(runs, name) for runs, name in zip((first, second), names, strict=True))
    if one.setting.dataset != other.setting.dataset:
        told = f"{names[0]} was judged on {one.setting.dataset}, {names[1]} on {other.setting.dataset}"
        raise ReportError(f"{told}: compare on one dataset")
    common = sorted(set(one.categories) & set(other.categories))
    if not common:
        raise ReportError(f"{names[0]} and {names[1]} have no category in common: judge both on the same ones")
    parts = {category: (_part(one, category), _part(other, category)) for category in common}
    for category, sides in parts.items():
        prints = {text(row, "data_fingerprint") for side in sides for row in side.rows} - {NA}
        if len(prints) > 1:
            raise ReportError(f"{names[0]} and {names[1]} saw other images of {category}: judge both on the same data")
    one, other = (
        Group(side.setting, tuple(run for pair in parts.values() for run in pair[place].runs))
        for place, side in enumerate((one, other))
    )
    return Comparison(
        names=names,
        first=one,
        second=other,
        categories=tuple(common),
        changes={each.name: change for each in COLUMNS if (change := _change(one, other, each))},
        difference=image_difference(one, other, resamples=resamples, seed=seed),
        per_category={name: image_difference(*pair, resamples=resamples, seed=seed) for name, pair in parts.items()},
        resamples=resamples,
        seed=seed,
    )


def comparison_table(comparison: Comparison) -> TextTable:
    """A row for each quantity, and for the image AUROC of each category where there are several."""
    rows = []
    for each in COLUMNS:
        means = [group.mean(each.name) for group in (comparison.first, comparison.second)]
        if any(means):
            values = [each.format(mean.value) if mean else NA for mean in means]
            rows.append([each.title, *values, _told(comparison.changes.get(each.name), each), ""])
            if each.name == _AUROC and comparison.difference:
                rows[-1][-1] = _interval(comparison.difference)
    auroc = column(_AUROC)
    for category, found in comparison.per_category.items() if len(comparison.categories) > 1 else ():
        if found:
            told = [auroc.format(found.first), auroc.format(found.second), difference_text(found.value)]
            rows.append([f"{auroc.title}, {category}", *told, _interval(found)])
    headers = ["", *comparison.names, "difference", "95 % interval"]
    return TextTable(headers, rows, [False, True, True, True, False])


def comparison_markdown(comparison: Comparison, command: str) -> str:
    table = comparison_table(comparison)
    lines = [f"# {escape(' and '.join(comparison.names))}", "", escape(comparison.verdict), ""]
    cells = [table.headers, ["---:" if right else "---" for right in table.numeric], *table.rows]
    lines += [
        f"| {' | '.join(row if place == 1 else [escape(cell) for cell in row])} |" for place, row in enumerate(cells)
    ]
    return "\n".join([*lines, "", f"Made by `{command.replace('`', '')}`.", ""])


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "first": comparison.names[0],
        "second": comparison.names[1],
        "dataset": comparison.first.setting.dataset,
        "categories": {name: _plain(found) for name, found in comparison.per_category.items()},
        "quantities": {
            name: {"first": change.before, "second": change.after} for name, change in comparison.changes.items()
        },
        "image_auroc": _plain(comparison.difference),
        "resamples": comparison.resamples,
        "seed": comparison.seed,
        "verdict": comparison.verdict,
    }


def _plain(found: Bootstrapped | None) -> dict[str, Any] | None:
    if found is None:
        return None
    interval = {"low": found.low, "high": found.high, "p": found.p, "tie": found.tie, "images": found.images}
    return {"first": found.first, "second": found.second, "difference": found.value, **interval}


def _only_setting(runs: Sequence[Run], name: str) -> Group:
    groups = summarize(runs).groups
    if len(groups) > 1:
        raise ReportError(f"{name} holds {len(groups)} settings, of which one can be compared: name a row's own file")
    return groups[0]


def _part(group: Group, category: str) -> Group:
    return Group(group.setting, tuple(run for run in group.runs if text(run.row, "category") == category))


def _change(first: Group, second: Group, each: Column) -> Change | None:
    before, after = first.per_category(each.name), second.per_category(each.name)
    common = before.keys() & after.keys()
    if not common or (
        isinstance(each.compare, Factor) and each.compare.same_machine and _machines(first) != _machines(second)
    ):
        return None
    return Change(fmean(before[c] for c in common), fmean(after[c] for c in common), len(common))


def _machines(group: Group) -> set[tuple[str, str]]:
    return {(text(row, "machine"), text(row, "threads")) for row in group.rows}


def _told(change: Change | None, each: Column) -> str:
    if change is None:
        return ""
    if isinstance(each.compare, Factor):
        return factor_text(change, each.compare) or "the same"
    return difference_text(change.difference) if isinstance(each.compare, Difference) or each.better == "higher" else ""


def _interval(found: Bootstrapped) -> str:
    told = f"{difference_text(found.low)} to {difference_text(found.high)}"
    return f"{told}, a tie" if found.tie else told
