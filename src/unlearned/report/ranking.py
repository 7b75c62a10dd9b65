"""A ranking as plots and as a table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from unlearned.records import RankRecord
from unlearned.report.console import literal
from unlearned.report.plots import Figure, axis, frame
from unlearned.report.words import number, significant

SHOWN = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
_COLOURS = {"forget": "#2f78d6", "retain": "#c8741a"}
_DASHES = {"forget": "solid", "retain": "dash"}


def ranking_rows(record: RankRecord) -> list[list[str]]:
    """A head and a row for each tenth of the points."""
    rows = [["share of points", *(f"{name} set" for name in record.points), *(["changes at most"] if record.bounds else [])]]
    for percent in SHOWN:
        row = [f"{percent} %", *(significant(values[percent]) for values in record.quantiles.values())]
        if record.bounds:
            row.append(significant(record.bounds[percent]) if percent < len(record.bounds) else "")
        rows.append(row)
    return rows


def ranking_plots(record: RankRecord) -> list[Figure]:
    """How the scores are distributed; and, if the score bounds an effect, what leaving out the lowest changes at most."""
    lines = [_line(name, list(values), _COLOURS[name], _DASHES[name]) for name, values in record.quantiles.items()]
    figures = [_figure("Scores", "Distance from 0 over the share of the points below it. Few points carry much where the curve is flat and then steep.", lines)]
    if record.bounds:
        caption = f"Upper bound, to first order, on what leaving the lowest points of both sets out of the training does to {record.bound_of}."
        figures.append(_figure("Effect of leaving points out", caption, [_line("bound", list(record.bounds), _COLOURS["forget"], "solid")]))
    return figures


def ranking_summary(record: RankRecord) -> RenderableType:
    """For the terminal."""
    head, *rows = ranking_rows(record)
    asked = f", asked about {record.queries}" if record.queries else ""
    shown = Table(box=box.SIMPLE, pad_edge=False, title=literal(record.score["name"] + asked), title_justify="left")
    for name in head:
        shown.add_column(literal(name), justify="right")
    for row in rows:
        shown.add_row(*map(literal, row))
    told = [] if record.bound_of is None else [literal(f"changes at most: to first order, {record.bound_of}, when so many of the lowest points are left out")]
    seconds = literal(f"cost: {number(record.cost.wall_seconds, 'seconds')} wall, {number(record.cost.cpu_seconds, 'seconds')} CPU")
    return Group(shown, *told, seconds, *(literal(note, "yellow") for note in record.notes))


def _line(name: str, values: list[float], colour: str, dash: str) -> dict[str, Any]:
    line = {"color": colour, "dash": dash, "width": 2}
    return {"type": "scatter", "mode": "lines", "name": name, "x": [i / 100 for i in range(len(values))], "y": values, "line": line}


def _figure(title: str, caption: str, lines: list[dict[str, Any]]) -> Figure:
    spec = {"data": lines, "layout": frame(xaxis=axis("share", "share of the points"), yaxis=axis("", ""), showlegend=len(lines) > 1)}
    return Figure(title, caption, spec, ())
