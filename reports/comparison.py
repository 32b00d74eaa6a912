"""Two settings side by side, with what chance could make of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.cautions import cautions
from reports.columns import COLUMNS, Column, Difference, Factor, column
from reports.errors import ReportError
from reports.groups import Change, Group, change_between
from reports.markdown import escape, fenced, markdown_table
from reports.noise import image_difference
from reports.runs import NA, Run, text
from reports.significance import RESAMPLES, AurocDifference
from reports.summary import Summary, summarize
from reports.table import difference_text, factor_text
from reports.text_table import TextTable

_AUROC = "image_auroc"


@dataclass(frozen=True, eq=False)
class Comparison:
    """`second` against `first`, over the categories of both.

    Attributes:
        names: what the two are called.
        parts: the two on each category.
        changes: by the name of a column, where both have a value.
        difference: of the image AUROC, over all categories; None where there are no scores of the same images.
        per_category: the same for each category alone.
        summary: of the two, which tells ties by the rule of a report.
    """

    names: tuple[str, str]
    first: Group
    second: Group
    parts: dict[str, tuple[Group, Group]]
    changes: dict[str, Change]
    difference: AurocDifference | None
    per_category: dict[str, AurocDifference | None]
    summary: Summary
    resamples: int
    seed: int

    def tie(self, name: str = _AUROC) -> bool:
        """Whether the two differ in the metric `name` by no more than chance, as far as it is known."""
        return self.summary.same(self.first, self.second, name, self.difference)

    def tie_on(self, category: str) -> bool:
        """The same of the image AUROC on one category."""
        return self.summary.same(*self.parts[category], _AUROC, self.per_category[category])

    @property
    def cautions(self) -> list[str]:
        """What else differs between the two, and what is not known."""
        return cautions(self.summary)

    @property
    def verdict(self) -> str:
        """What may be said of the image AUROC, in one sentence."""
        if _AUROC not in self.changes:
            return "Nothing is said of the image AUROC: it was not measured in both."
        told = f"The image AUROC differs by {difference_text(self.changes[_AUROC].difference)}"
        found = self.difference
        if found is None and self.tie():
            return f"{told}: a tie: seeds differ as much."
        if found is None:
            return (
                f"{told}; whether that is chance is not known, for the scores of the test images are not beside all "
                "rows of both: run both again with this version."
            )
        interval = f"95 % interval {difference_text(found.low)} to {difference_text(found.high)}, p = {found.p:.2g}"
        made = f"{found.images} images, {self.resamples:,} paired resamples, seed {self.seed}"
        judged = f"{self.names[1]} is {'better' if found.value > 0 else 'worse'}"
        if self.tie():
            judged = f"a tie: {'chance may have made it' if found.tie else 'seeds differ as much'}"
        return f"{told} ({interval}; {made}): {judged}."


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
    parts = {category: (one.part(category), other.part(category)) for category in common}
    for category, sides in parts.items():
        prints = {text(row, "data_fingerprint") for side in sides for row in side.rows} - {NA}
        if len(prints) > 1:
            raise ReportError(f"{names[0]} and {names[1]} saw other images of {category}: judge both on the same data")
    one, other = (
        Group(side.setting, tuple(run for pair in parts.values() for run in pair[place].runs))
        for place, side in enumerate((one, other))
    )
    difference = image_difference(one, other, resamples=resamples, seed=seed)
    return Comparison(
        names=names,
        first=one,
        second=other,
        parts=parts,
        changes={each.name: change for each in COLUMNS if (change := change_between(one, other, each))},
        difference=difference,
        per_category={name: image_difference(*pair, resamples=resamples, seed=seed) for name, pair in parts.items()},
        summary=Summary(
            groups=(one, other),
            origins={},
            shown=frozenset(),
            parts=tuple(part for pair in parts.values() for part in pair),
            differences={other: difference} if difference else {},
        ),
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
            tie = isinstance(each.compare, Difference) and comparison.tie(each.name)
            noise = _noise(comparison.difference if each.name == _AUROC else None, tie=tie)
            rows.append([each.title, *values, _told(comparison.changes.get(each.name), each), noise])
    auroc = column(_AUROC)
    for category, found in comparison.per_category.items() if len(comparison.parts) > 1 else ():
        if found:
            told = [auroc.format(found.first), auroc.format(found.second), difference_text(found.value)]
            rows.append([f"{auroc.title}, {category}", *told, _noise(found, tie=comparison.tie_on(category))])
    headers = ["", *comparison.names, "difference", "95 % interval"]
    return TextTable(headers, rows, [False, True, True, True, False])


def comparison_markdown(comparison: Comparison, command: str) -> str:
    """The verdict, the cautions, the table, and the command that makes it again."""
    lines = [f"# {escape(' and '.join(comparison.names))}", "", escape(comparison.verdict), ""]
    lines += [f"> {escape(told)}\n" for told in comparison.cautions]
    lines += [*markdown_table(comparison_table(comparison)), "", "Made by:", "", *fenced(command)]
    return "\n".join(lines)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "first": comparison.names[0],
        "second": comparison.names[1],
        "dataset": comparison.first.setting.dataset,
        "categories": {
            name: _plain(found, tie=comparison.tie_on(name)) for name, found in comparison.per_category.items()
        },
        "quantities": {
            name: {"first": change.before, "second": change.after} for name, change in comparison.changes.items()
        },
        "image_auroc": _plain(comparison.difference, tie=comparison.tie()),
        "resamples": comparison.resamples,
        "seed": comparison.seed,
        "verdict": comparison.verdict,
        "tie": comparison.tie(),
        "cautions": comparison.cautions,
    }


def _plain(found: AurocDifference | None, *, tie: bool) -> dict[str, Any] | None:
    if found is None:
        return None
    interval = {"low": found.low, "high": found.high, "p": found.p, "tie": tie, "images": found.images}
    return {"first": found.first, "second": found.second, "difference": found.value, **interval}


def _only_setting(runs: Sequence[Run], name: str) -> Group:
    groups = summarize(runs).groups
    if len(groups) > 1:
        raise ReportError(f"{name} holds {len(groups)} settings, of which one can be compared: name a row's own file")
    return groups[0]


def _told(change: Change | None, each: Column) -> str:
    if change is None:
        return ""
    if isinstance(each.compare, Factor):
        return factor_text(change, each.compare) or "the same"
    return difference_text(change.difference) if isinstance(each.compare, Difference) or each.better == "higher" else ""


def _noise(found: AurocDifference | None, *, tie: bool) -> str:
    interval = [f"{difference_text(found.low)} to {difference_text(found.high)}"] if found else []
    return ", ".join([*interval, *(["a tie"] if tie else [])])
