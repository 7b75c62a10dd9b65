"""A benchmark as tables, dot plots and curves: for each metric methods in rows and settings in columns, the paper's number beside ours."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from unlearned.records import BenchRecord, BenchRow, Quoted
from unlearned.report.console import literal
from unlearned.report.drawings import Chart, Dot, DotRow, Dots, Line, Mark, Span, band_of
from unlearned.report.scales import Scale, of_budgets, of_values
from unlearned.report.words import readable, significant

Papers = Mapping[Quoted, float]
Statistic = Literal["mean", "median"]
MOST = 4
"""Settings that are drawn one by one; more are drawn together, a small dot for each."""
_AMOUNT = re.compile(r"(?P<of>.*?)(?P<amount>\d+(?:\.\d+)?) (?P<unit>%|[a-z]+)")


class Curves(NamedTuple):
    """What grows or falls with an amount: a chart for each method, the others faint behind it."""

    of: str
    """What the settings share beside the amount; it may be nothing."""
    caption: str
    each: list[Chart]


class Sheet(NamedTuple):
    """One metric on one split."""

    title: str
    settings: list[str]
    rows: list[tuple[str, list[str]]]
    """Methods with a cell for each setting."""
    drawn: list[Dots]
    """The same numbers, drawn."""
    curves: list[Curves]
    """Those whose settings are amounts of something, such as `30 %` or `memora, 25 steps`."""


def bench_tables(record: BenchRecord, statistic: Statistic, paper: Papers) -> RenderableType:
    """One table for each metric and split, for the terminal.

    A cell holds the mean or median over seeds, in brackets the smallest and the largest, and after a stroke the paper's number.
    """
    return Group(*(_table(f"{record.suite}: {sheet.title} ({statistic} [least, most] / paper)", sheet) for sheet in sheets(record, statistic, paper)))


class Place(NamedTuple):
    """A method at a setting, or at all of them: what was found there."""

    values: list[float]
    paper: float | None = None
    reason: str = ""
    """Why there is no value."""


def sheets(record: BenchRecord, statistic: Statistic, paper: Papers) -> list[Sheet]:
    """One sheet for each metric and split. A method has the same look in all of them: that of its place among all methods."""
    methods = list(dict.fromkeys(row.method for row in record.rows))
    found = []
    for metric, split in dict.fromkeys((row.metric, row.split) for row in record.rows):
        rows = [row for row in record.rows if (row.metric, row.split) == (metric, split)]
        settings = list(dict.fromkeys(row.setting for row in rows))
        looks = {method: look for look, method in enumerate(methods) if any(row.method == method for row in rows)}
        places: dict[str, dict[str, Place]] = {method: {} for method in looks}
        texts: list[tuple[str, list[str]]] = [(method, []) for method in looks]
        for method, cells in texts:
            for setting in settings:
                here = [row for row in rows if (row.method, row.setting) == (method, setting)]
                quoted = paper.get(Quoted(method, setting, split, metric))
                places[method][setting] = Place(_values(here), quoted, next((row.reason for row in here if row.reason), ""))
                cells.append(cell(here, statistic, quoted))
        title = readable(metric) + ("" if split == "all" else f", {split}")
        amounts = _amounts(settings)
        curves = [_curves(of, unit, amounts[of, unit], looks, places, statistic) for of, unit in amounts]
        rest = [setting for setting in settings if not any(setting in along for along in amounts.values())]
        drawn = _one_by_one(rest, looks, places, statistic) if len(rest) <= MOST else _together(rest, looks, places, statistic)
        found.append(Sheet(title, settings, texts, drawn, [several for several in curves if several.each]))
    return found


def cell(rows: Sequence[BenchRow], statistic: Statistic, paper: float | None) -> str:
    """One cell as text."""
    values = _values(rows)
    if values:
        text = significant(_middle(values, statistic))
        if len(values) > 1:
            text += f" [{significant(min(values))}, {significant(max(values))}]"
    else:
        text = rows[0].reason or "" if rows else "-"
    return text if paper is None else f"{text} / {significant(paper)}"


def _table(title: str, sheet: Sheet) -> Table:
    shown = Table(box=box.SIMPLE, pad_edge=False, title=literal(title), title_justify="left")
    shown.add_column("method", overflow="fold")
    for setting in sheet.settings:
        shown.add_column(literal(setting), justify="right", overflow="fold")
    for method, cells in sheet.rows:
        shown.add_row(literal(method), *map(literal, cells))
    return shown


def _amounts(settings: Sequence[str]) -> dict[tuple[str, str], dict[str, float]]:
    """Settings that are three or more amounts of the same unit, by what else they say and that unit."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for setting in settings:
        if said := _AMOUNT.fullmatch(setting):
            found.setdefault((said["of"], said["unit"]), {})[setting] = float(said["amount"])
    return {key: along for key, along in found.items() if len(along) > 2}


def _curves(
    of: str, unit: str, along: Mapping[str, float], looks: Mapping[str, int], places: Mapping[str, Mapping[str, Place]], statistic: Statistic
) -> Curves:
    every = [value for method in looks for setting in along for value in places[method][setting].values]
    if len(set(every)) < 2:  # a plot of one number says nothing
        return Curves(of, "", [])
    x, y = of_budgets(along.values(), unit), of_values(every, "", count=3)

    def line(method: str) -> Line:
        points = [(along[setting], places[method][setting].values) for setting in sorted(along, key=along.__getitem__) if places[method][setting].values]
        marks = []
        for amount, values in points:
            spread = f" [{significant(min(values))}, {significant(max(values))}]" if len(values) > 1 else ""
            told = f"{method}, {of}{significant(amount)} {unit}: {significant(_middle(values, statistic))}{spread}"
            marks.append(Mark(x.place(amount), round(100 - y.place(_middle(values, statistic)), 3), told))
        return Line(looks[method], tuple(marks), band_of([(x.place(amount), min(values), max(values)) for amount, values in points], y))

    told = {method: own for method in looks if (own := line(method)).marks}
    behind = {method: replace(own, band="", faint=True) for method, own in told.items()}
    charts = [Chart(method, (*(behind[other] for other in told if other != method), own), x, y, look=looks[method]) for method, own in told.items()]
    several = any(len(place.values) > 1 for place in (places[method][setting] for method in looks for setting in along))
    spread = f"; line: {statistic} over seeds, area: from the smallest to the largest" if several else ""
    others = "; grey: the other methods" if len(told) > 1 else ""
    return Curves(of.strip(" ,"), f"Across: {unit}{spread}{others}.", charts)


def _one_by_one(settings: Sequence[str], looks: Mapping[str, int], places: Mapping[str, Mapping[str, Place]], statistic: Statistic) -> list[Dots]:
    """A plot for each setting, with the paper's numbers."""
    drawn = []
    for setting in settings:
        here = {method: place for method in looks if (place := places[method][setting]) != Place([])}
        several = any(len(place.values) > 1 for place in here.values())
        drawn += _plot(setting, f"{statistic} over seeds; small: each seed" if several else "", looks, here, statistic)
    return drawn


def _together(settings: Sequence[str], looks: Mapping[str, int], places: Mapping[str, Mapping[str, Place]], statistic: Statistic) -> list[Dots]:
    """One plot of the mean over settings."""
    here = {}
    for method in looks:
        found = [places[method][setting] for setting in settings]
        values = [_middle(place.values, statistic) for place in found if place.values]
        here[method] = Place(values, reason=next((place.reason for place in found if place.reason), ""))
    return _plot(f"{len(settings)} settings", "mean over settings; small: each of them", looks, here, "mean")


def _plot(title: str, caption: str, looks: Mapping[str, int], places: Mapping[str, Place], statistic: Statistic) -> list[Dots]:
    quoted = [place.paper for place in places.values() if place.paper is not None]
    every = [*quoted, *(value for place in places.values() for value in place.values)]
    if len(set(every)) < 2:  # a plot of one number says nothing
        return []
    scale = of_values(every, "", count=3)
    heads = ("ours", "paper") if quoted else ("ours",)
    rows = [_row(method, looks[method], place, scale, statistic, len(heads)) for method, place in places.items()]
    return [Dots(title, "; ".join(filter(None, [caption, "hollow: the paper's number" if quoted else ""])), heads, tuple(rows), scale.ticks)]


def _row(method: str, look: int, place: Place, scale: Scale, statistic: Statistic, width: int) -> DotRow:
    values, paper = place.values, place.paper
    dots = [Dot(scale.place(value), "seed") for value in values] if len(values) > 1 else []
    dots += [Dot(scale.place(_middle(values, statistic)))] if values else []
    dots += [Dot(scale.place(paper), "paper")] if paper is not None else []
    texts = (significant(_middle(values, statistic)) if values else "", "" if paper is None else significant(paper))
    spread = (min(values), max(values)) if len(values) > 1 else None
    return DotRow(
        method,
        look,
        tuple(dots),
        span=None if spread is None else Span(*map(scale.place, spread)),
        texts=texts[:width],
        interval="" if spread is None else f"[{significant(spread[0])}, {significant(spread[1])}]",
        note="" if dots else place.reason,
    )


def _values(rows: Sequence[BenchRow]) -> list[float]:
    return [row.value for row in rows if row.value is not None]


def _middle(values: Sequence[float], statistic: Statistic) -> float:
    return statistics.mean(values) if statistic == "mean" else statistics.median(values)
