"""What the page of several runs shows: the telling numbers, a dot plot for each metric, the curves of each attack, and what forgetting costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from unlearned.records import NO_REFERENCE, CompareRecord, Finding, SubjectName
from unlearned.report import words
from unlearned.report.curves import Curve
from unlearned.report.drawings import Chart, Dot, DotRow, Dots, Line, Mark, Span, curve_line, ends, interval_of
from unlearned.report.scales import Scale, of_budgets, of_values
from unlearned.report.sections import QUESTIONS, question_of
from unlearned.report.several import Column, Measure, attacked, columns, measures

OPEN = 4
"""Dot plots of one audit that are shown at once; further ones are folded."""
SHARED: tuple[SubjectName, ...] = ("original", "reference")
"""Models that runs on one problem usually have in common."""
BEST = {
    "reference": "Best is as the retrained models, at the dashed line.",
    "higher": "Higher is better; the dashed line is what the retrained models reach.",
    "lower": "Lower is better; the dashed line is what the retrained models reach.",
    "none": "It describes, and none is best. The dashed line marks the retrained models.",
}


class Cell(NamedTuple):
    """A cell of the summary."""

    text: str
    beside: str = ""
    order: float | None = None
    """What the table is sorted by."""


class Group(NamedTuple):
    """The dot plots of one audit or attack."""

    entry: str
    dots: list[Dots]
    folded: list[Dots]


class Part(NamedTuple):
    """One question with what answers it."""

    anchor: str
    title: str
    lead: str
    groups: list[Group]


@dataclass(frozen=True)
class Return:
    """One attack on every method."""

    title: str
    overlay: Chart
    each: list[Chart]
    heads: list[str]
    rows: list[tuple[str, int | str, list[Cell]]]


def contents(record: CompareRecord) -> dict[str, Any]:
    """All that the page shows, without the runs themselves."""
    names = [run.name for run in record.runs]
    every = measures(record)
    chosen = columns(record)
    return {
        "names": names,
        "columns": chosen,
        "summary": [[cell(column, position) for column in chosen] for position in range(len(names))],
        "shared": {words.SUBJECTS[subject]: [column.shared(subject) for column in chosen] for subject in SHARED},
        "prices": prices(every, names),
        "returns": [returns(runs, names) for runs in attacked(record).values()],
        "kept": [replace(dots(m, names), title=f"{m.entry}, {m.budget}") for m in every if m.metric == "retention"],
        "parts": parts([m for m in every if m.metric != "retention"], names),
    }


def cell(column: Column, position: int) -> Cell:
    """A telling number of one run; a gap is ordered by its size, in whichever direction."""
    finding = column.measure.cells["unlearned"].get(position)
    text = column.text(position)
    if finding is None or finding.value is None:
        return Cell(text)
    if column.shows == "gap":
        return Cell(text, f"at {words.budget(finding)}" if finding.budget is not None else "", abs(finding.value if finding.gap is None else finding.gap))
    return Cell(text, words.difference(finding.gap, finding.unit) if finding.gap is not None and column.measure.audit != "cost" else "", finding.value)


def parts(every: Sequence[Measure], names: Sequence[str]) -> list[Part]:
    """Every measure under the question that it answers; audits that nobody assigned stand with the others."""
    found = []
    for question in QUESTIONS:
        groups = []
        for entry in dict.fromkeys(m.entry for m in every if question_of(m.audit, m.kind) is question):
            drawn = [dots(m, names) for m in every if m.entry == entry]
            groups.append(Group(entry, drawn[:OPEN], drawn[OPEN:]))
        found.append(Part(question.anchor, question.title, question.lead, groups))
    return found


def dots(measure: Measure, names: Sequence[str]) -> Dots:
    """One metric of every method against the retrained models."""
    scale = of_values(ends(measure.findings) or [0.0], measure.unit, count=3)
    common = measure.distinct("reference")
    references, own = measure.cells.get("reference", {}), measure.cells.get("unlearned", {})
    alone = not common
    rows = [_row(words.SUBJECTS[who].partition(" ")[0], who, measure.distinct(who), common, scale, alone=alone) for who in SHARED if measure.distinct(who)]
    for position, name in enumerate(names):
        held_against = common if len(common) < 2 else [references[position]] if position in references else []
        rows.append(_row(name, position, [own[position]] if position in own else [], held_against, scale, alone=alone))
    return Dots(measure.title, _caption(measure), ("value", "gap"), tuple(rows), scale.ticks)


def _row(name: str, look: int | str, findings: Sequence[Finding], references: Sequence[Finding], scale: Scale, *, alone: bool) -> DotRow:
    """One line of a dot plot; several findings if the runs differ in what they say of a model that they share.

    `alone`: the caption says why there is no gap.
    """
    valued = sorted({f.value: f for f in findings if f.value is not None}.items())
    only = valued[0][1] if len(valued) == 1 else None
    gap = "" if only is None else words.ABSENT if alone and only.gap is None else words.gap(only)
    return DotRow(
        name,
        look,
        dots=tuple(Dot(scale.place(value)) for value, _ in valued),
        span=None if only is None else interval_of(only, scale),
        texts=(" to ".join(words.number(value, f.unit) for value, f in valued), gap),
        interval="" if only is None else words.interval(only),
        note="" if valued else next((f.reason or "" for f in findings), "not measured"),
        lines=tuple(scale.place(f.value) for f in references if f.value is not None),
        bands=tuple(span for f in references if (span := interval_of(f, scale))),
    )


def _caption(measure: Measure) -> str:
    how = dict.fromkeys(f.interval for f in measure.cells.get("unlearned", {}).values() if f.interval)
    directions = {f.direction for f in measure.findings}
    best = BEST[directions.pop()] if len(directions) == 1 else ""
    if not measure.distinct("reference"):
        why = dict.fromkeys(f.reason for f in measure.findings if f.value is not None and f.subject != "reference" and f.reason)
        best = f"There is no line to compare with: {'; or '.join(why) or NO_REFERENCE}."
    elif len(measure.distinct("reference")) > 1:
        best += " Each run has retrained models of its own."
    return " ".join(filter(None, [best, f"Intervals: {', '.join(how)}." if how else ""]))


def returns(runs: dict[int, Curve], names: Sequence[str]) -> Return:
    """The curve of one attack on every method beside the retrained models' own."""
    first = next(iter(runs.values()))
    points = [p for curve in runs.values() for p in curve.findings if p.value is not None]
    budgets = sorted({p.budget for curve in runs.values() for p in curve.findings if p.budget is not None})
    x, y = of_budgets(budgets, first.budget_unit), of_values([*ends(points), 0.0], first.unit)
    x_title = f"budget of the attack ({first.budget_unit})" if first.budget_unit else "budget of the attack"

    def line(position: int, *, faint: bool = False) -> Line:
        return curve_line(position, runs[position].points.get("unlearned", []), x, y, names[position], faint=faint)

    def shared(positions: Iterable[int]) -> list[Line]:
        lines = [curve_line(who, runs[p].points.get(who, []), x, y, words.SUBJECTS[who]) for who in SHARED for p in positions]
        return list({(line.look, line.path): line for line in lines if line.marks}.values())

    each = []
    for position, curve in runs.items():
        worst = curve.worst
        title = "" if worst is None or worst.gap is None else f"farthest at {words.budget(worst)}: {words.difference(worst.gap, worst.unit)}"
        others = [line(other, faint=True) for other in runs if other != position]
        each.append(Chart(title, (*others, *shared([position]), line(position)), x, y, look=position))
    rows: list[tuple[str, int | str, list[Cell]]] = []
    rows += [(words.SUBJECTS[who], who, _cells(runs[p].points[who], budgets)) for who in SHARED for p in _distinct(runs, who)]
    rows += [(names[p], p, _cells(curve.points.get("unlearned", []), budgets)) for p, curve in runs.items()]
    return Return(
        f"{first.entry}: {words.readable(first.metric)} {words.place(first.split)}",
        Chart("", (*shared(runs), *(replace(line(p), band="") for p in runs)), x, y, x_title),
        each,
        [words.amount(budget, first.budget_unit) for budget in budgets],
        rows,
    )


def _distinct(runs: dict[int, Curve], who: SubjectName) -> list[int]:
    """Runs whose curve of a model that they usually share differs from those of the runs before."""
    return list({tuple(f.value for f in curve.points[who]): p for p, curve in reversed(runs.items()) if who in curve.points}.values())[::-1]


def _cells(points: Sequence[Finding], budgets: Sequence[float]) -> list[Cell]:
    at = {point.budget: point for point in points}
    return [Cell(words.measured(at[b]), words.gap(at[b])) if b in at else Cell("") for b in budgets]


def prices(every: Sequence[Measure], names: Sequence[str]) -> list[Chart]:
    """How far a method is from the retrained models on the forget set, against what it lost elsewhere and against the work.

    By the distance of outputs where it was measured, since an accuracy of 0 hides how a model gets there; else by utility.
    """

    def first(audit: str, split: str, metric: str | None = None) -> Measure | None:
        return next((m for m in every if (m.audit, m.split) == (audit, split) and metric in {None, m.metric} and "unlearned" in m.cells), None)

    forgetting = first("output-distance", "forget") or first("utility", "forget")
    utility, cost = first("utility", "test"), first("cost", "all", "cpu_seconds_ratio")
    if forgetting is None:
        return []
    charts = [_plane(forgetting, price, names, by_gap=by_gap) for price, by_gap in ((utility, True), (cost, False)) if price is not None]
    return [chart for chart in charts if chart.lines]


def _plane(forgetting: Measure, price: Measure, names: Sequence[str], *, by_gap: bool) -> Chart:
    xs = {p: _ends(f, by_gap=True) for p, f in forgetting.cells["unlearned"].items() if f.gap is not None}
    ys = {p: _ends(f, by_gap=by_gap) for p, f in price.cells["unlearned"].items() if f.value is not None and (f.gap is not None or not by_gap)}
    both = [p for p in range(len(names)) if p in xs and p in ys]
    equal = 0.0 if by_gap else 1.0
    x = of_values([0.0, *(end for p in both for end in xs[p])], forgetting.unit, signed=True)
    y = of_values([equal, *(end for p in both for end in ys[p])], price.unit, signed=by_gap)
    what = [f"{words.readable(m.metric)} {words.place(m.split)}" for m in (forgetting, price)]
    lines = []
    for p in both:
        (left, gap, right), (bottom, cost, top) = xs[p], ys[p]
        paid = f"{what[1]} {words.difference(cost, price.unit)}" if by_gap else f"{words.number(cost, price.unit)} the work of retraining"
        told = f"{names[p]}: {what[0]} {words.difference(gap, forgetting.unit)}, {paid}"
        place = Mark(x.place(gap), 100 - y.place(cost), told, Span(x.place(left), x.place(right)), Span(100 - y.place(top), 100 - y.place(bottom)))
        lines.append(Line(p, (place,)))
    title = f"against {what[1]}" if by_gap else "against processor time"
    y_title = f"gap of {words.readable(price.metric)}" if by_gap else "ratio to retraining"
    return Chart(title, tuple(lines), x, y, f"gap of {what[0]}", y_title, zero=(x.place(0.0), 100 - y.place(equal)))


def _ends(finding: Finding, *, by_gap: bool) -> tuple[float, float, float]:
    """Lower end, value and upper end; as gaps, with the reference taken off."""
    value = finding.value or 0.0
    base = value - (finding.gap or 0.0) if by_gap else 0.0
    low, high = (value, value) if finding.low is None or finding.high is None else (finding.low, finding.high)
    return low - base, value - base, high - base
