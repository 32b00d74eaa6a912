"""What the table says, in plain words: computed from it, and honest when a saving is not worth its cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.cautions import cautions
from reports.columns import Factor, column, count, metric, milliseconds
from reports.groups import Change, Group, change_between
from reports.runs import NA, Run
from reports.summary import Summary, summarize
from reports.table import NO_CHANGE, difference_text, factor_text

SMALL_LOSS = 0.02  # of image or pixel AUROC; above it a setting is not called a saving
STRONG_LOSS = 0.05
NEAR_CHANCE = 0.6  # differences to an origin below this mean little

Verdict = Literal["holds", "costs", "fails", "open"]
_AUROCS = ("image_auroc", "pixel_auroc")
_COSTS = ("macs_used", "params_used", "params_full", "file_bytes", "ms_total")
_TILES = (("params_full", "parameters"), ("macs_used", "MACs"), ("file_bytes", "file"), ("ms_total", "per image"))


@dataclass(frozen=True)
class Finding:
    """What the runs of one arch on one dataset show; `chosen` is the best trade-off, `figures` its (value, what)."""

    title: str
    verdict: Verdict
    sentences: tuple[str, ...]
    chosen: str = ""
    figures: tuple[tuple[str, str], ...] = ()


def summary_text(runs: Sequence[Run]) -> list[str]:
    """The findings as sentences, each led by what it is about, then the cautions.

    Raises:
        ReportError: there are no runs.
    """
    summary = summarize(runs)
    told = [f"{finding.title}: {sentence}" for finding in findings(summary) for sentence in finding.sentences]
    return told + cautions(summary)


def findings(summary: Summary) -> list[Finding]:
    """One finding per arch and dataset, in the order of the table."""
    parts: dict[tuple[str, str], list[Group]] = {}
    for group in summary.groups:
        parts.setdefault((group.setting.arch, group.setting.dataset), []).append(group)
    return [_finding(summary, f"{arch} on {dataset}", groups) for (arch, dataset), groups in parts.items()]


def _finding(summary: Summary, title: str, groups: list[Group]) -> Finding:
    origin = summary.origin_of(groups[0])
    if origin is None:
        return Finding(title, "open", (f"No origin was run, so nothing can be compared.{_best(summary, groups)}",))
    sentences = [_about_origin(origin)]
    compared = {group: loss for group in groups if (loss := _loss(summary, group)) is not None}
    if not compared:
        reason = "no other setting shares an AUROC with it" if len(groups) > 1 else "nothing else was run"
        return Finding(title, "open", (*sentences, f"There is nothing to compare it with: {reason}."))
    saving = {group: loss for group, loss in compared.items() if any(_saves(summary, group, name) for name in _COSTS)}
    kept = [group for group, loss in saving.items() if loss <= SMALL_LOSS]
    verdict: Verdict = "holds"
    if kept:
        chosen = min(kept, key=lambda group: (_cost(group), saving[group]))
        sentences.append(_about(summary, chosen))
    else:
        closest = saving or compared
        chosen = min(closest, key=lambda group: closest[group])
        verdict = "fails" if closest[chosen] > STRONG_LOSS else "costs"
        limit = f"stays within {SMALL_LOSS:g} of the origin's AUROC" if saving else "saves anything"
        sentences.append(f"No setting {limit}. The closest: {_about(summary, chosen)}")
    smallest = min(compared, key=lambda group: (_cost(group), compared[group]))
    if _cost(smallest) < _cost(chosen):
        sentences.append(f"The smallest: {_about(summary, smallest)}")
    sentences += _about_recovery(summary, list(compared)) + _about_int8(summary, groups)
    return Finding(title, verdict, tuple(sentences), _name(summary, chosen), tuple(_figures(summary, chosen)))


def _loss(summary: Summary, group: Group) -> float | None:
    """The worse of what image and pixel AUROC lost; None where neither can be compared."""
    changes = [summary.change(group, column(name)) for name in _AUROCS]
    return max((-change.difference for change in changes if change), default=None)


def _saves(summary: Summary, group: Group, name: str) -> bool:
    change = summary.change(group, column(name))
    return change is not None and change.after < 0.95 * change.before


def _cost(group: Group) -> tuple[float, ...]:
    return tuple(mean.value if (mean := group.mean(name)) else float("inf") for name in _COSTS)


def _name(summary: Summary, group: Group) -> str:
    """The setting without its arch, which the finding is about; what is the same in every run is not repeated."""
    setting = group.setting
    said = [setting.recover, *(getattr(setting, name) for name in ("scope", "precision") if name in summary.shown)]
    known = [word for word in said if word not in (NA, "none")]
    name = "the unpruned network" if setting.dense else f"{setting.method} at {setting.ratio_text}"
    return f"{name} ({', '.join(known)})" if known else name


def _best(summary: Summary, groups: Sequence[Group]) -> str:
    measured = {group: mean.value for group in groups if (mean := group.mean("image_auroc"))}
    if not measured:
        return ""
    best = max(measured, key=lambda group: measured[group])
    return f" The best image AUROC is {metric(measured[best])}, of {_name(summary, best)}."


def _about_origin(origin: Group) -> str:
    auroc, params, ms = (origin.mean(name) for name in ("image_auroc", "params_full", "ms_total"))
    if auroc is None:
        return "The origin has no image AUROC."
    cost = [f"{count(params.value)} parameters"] if params else []
    cost += [f"{milliseconds(ms.value)} per image"] if ms else []
    told = " with ".join(
        [f"The origin reaches image AUROC {metric(auroc.value)}", *([" and ".join(cost)] if cost else [])]
    )
    return (
        f"{told}. That is near guessing (0.5): differences to it mean little."
        if auroc.value < NEAR_CHANCE
        else f"{told}."
    )


def _about(summary: Summary, group: Group) -> str:
    """One setting against its origin: accuracy first, then what was saved, then a verdict if the loss is strong."""
    told = " ".join([_name(summary, group), _accuracy(summary, group), *_saved(summary, group)])
    lost = [
        name for name in _AUROCS if (change := summary.change(group, column(name))) and -change.difference > STRONG_LOSS
    ]
    if not lost:
        return f"{told}."
    if all(summary.tie(group, name) for name in lost):
        return f"{told}. A loss of this size is no saving, though chance may have made it."
    return f"{told}. That is a strong loss, not a saving."


def _accuracy(summary: Summary, group: Group) -> str:
    image, pixel = (summary.change(group, column(name)) for name in _AUROCS)
    if image is None:
        sure = _certainty(summary, group, "pixel_auroc")
        return _kept(pixel, "pixel AUROC", sure) if pixel else "has no AUROC to compare"
    told = _kept(image, "image AUROC", _certainty(summary, group, "image_auroc"))
    if pixel is None or -pixel.difference <= SMALL_LOSS:
        return told
    share = f"{_share(pixel)} of its pixel AUROC ({_values(pixel)}{_certainty(summary, group, 'pixel_auroc')})"
    return f"{told} and {share}" if image.difference < 0 else f"{told} but keeps {share}"


def _kept(change: Change, what: str, certainty: str) -> str:
    if change.difference >= 0 or change.before <= 0:
        return f"reaches {what} {metric(change.after)} (the origin {metric(change.before)}{certainty})"
    verb = "keeps only" if -change.difference > STRONG_LOSS else "keeps"
    return f"{verb} {_share(change)} of the origin's {what} ({_values(change)}{certainty})"


def _certainty(summary: Summary, group: Group, name: str) -> str:
    """What is known of the noise of the difference to the origin: a tie, the interval, or nothing."""
    interval = summary.differences.get(group) if name == "image_auroc" else None
    told = f", 95 % interval {difference_text(interval.low)} to {difference_text(interval.high)}" if interval else ""
    return f"{told}, a tie" if summary.tie(group, name) else told


def _share(change: Change) -> str:
    return f"{100 * change.after / change.before:.0f} %"


def _values(change: Change) -> str:
    return f"{metric(change.after)} of {metric(change.before)}, {difference_text(change.difference)}"


def _saved(summary: Summary, group: Group) -> Iterator[str]:
    params = summary.change(group, column("params_full")) or summary.change(group, column("params_used"))
    file = _factor(summary, group, "file_bytes")
    if params and params.before > 0 and abs(params.difference) > 0.005 * params.before:
        share = 100 * params.after / params.before
        yield f"with {share:.{0 if share >= 9.5 else 1}f} % of its parameters"
        if file and group.setting.quantized:  # parameters alone do not tell what it saves
            yield f"in a file {file}"
    elif file:
        yield f"with a file {file}"
    if summary.change(group, column("ms_total")):
        yield f"and runs {_factor(summary, group, 'ms_total') or 'no faster'}"


def _factor(summary: Summary, group: Group, name: str) -> str | None:
    change, words = summary.change(group, column(name)), column(name).compare
    return factor_text(change, words) if change and isinstance(words, Factor) else None


def _about_recovery(summary: Summary, groups: Sequence[Group]) -> list[str]:
    """What recovery changed, for the setting, run with and without it, where it helped most."""
    plain = {group.setting: group for group in groups if group.setting.recover in ("none", NA)}
    lifts: list[tuple[float, Change, Group, Group]] = []
    for group in groups:
        twins = [twin for word in ("none", NA) if (twin := plain.get(group.setting._replace(recover=word)))]
        if group.setting in plain or not twins:
            continue
        if change := change_between(twins[0], group, column("image_auroc")):
            lifts.append((change.difference, change, twins[0], group))
    if not lifts:
        return []
    lift, change, twin, group = max(lifts, key=lambda found: found[0])
    what = f"{group.setting.method} at {group.setting.ratio_text}" + (" in int8" if group.setting.quantized else "")
    if lift > 0 and summary.same(twin, group, "image_auroc"):
        told = f"the image AUROC of {what} by more than the noise ({difference_text(lift)})"
        return [f"{group.setting.recover} does not lift {told}."]
    verb = "lifts" if lift > 0 else "does not lift"
    values = f"from {metric(change.before)} to {metric(change.after)}" if lift > 0 else f"({difference_text(lift)})"
    return [f"{group.setting.recover} {verb} the image AUROC of {what} {values}."]


def _about_int8(summary: Summary, groups: Sequence[Group]) -> list[str]:
    """What rounding to int8 changed, for the setting, run in float too, that it cost most."""
    plain = {group.setting: group for group in groups if not group.setting.quantized}
    pairs = []
    for group in groups:
        twin = next((plain[each] for each in plain if each == group.setting._replace(precision=each.precision)), None)
        if not group.setting.quantized or twin is None:
            continue
        changes = [(name, change) for name in _AUROCS if (change := change_between(twin, group, column(name)))]
        if changes:
            pairs.append((min(change.difference for _, change in changes), changes, twin, group))
    if not pairs:
        return []
    _, changes, twin, group = min(pairs, key=lambda found: found[0])
    told = " and ".join(
        f"{difference_text(change.difference)} {column(name).title}{_tie(summary, twin, group, name)}"
        for name, change in changes
    )
    setting = group.setting
    what = "the unpruned network" if setting.dense else f"{setting.method} at {setting.ratio_text}"
    most = "" if len(pairs) == 1 else f", the most of {len(pairs)} settings"
    return [f"{setting.precision} changes {what} by {told} against the same in float{most}."]


def _tie(summary: Summary, twin: Group, group: Group, name: str) -> str:
    change = change_between(twin, group, column(name))
    tied = change and difference_text(change.difference) != NO_CHANGE and summary.same(twin, group, name)
    return " (a tie)" if tied else ""


def _figures(summary: Summary, group: Group) -> Iterator[tuple[str, str]]:
    for name in _AUROCS:
        if change := summary.change(group, column(name)):
            tied = ", a tie" if summary.tie(group, name) else ""
            yield difference_text(change.difference), f"{column(name).title}{tied}"
    for name, what in _TILES:
        if told := _factor(summary, group, name):
            times, word = told.split(" ", 1)
            yield times, f"{word} {what}"
