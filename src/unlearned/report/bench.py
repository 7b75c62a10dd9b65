"""A benchmark as tables: for each metric, methods in rows and settings in columns, the paper's number beside ours."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from unlearned.records import BenchRecord, BenchRow, Quoted
from unlearned.report.console import literal
from unlearned.report.words import readable, significant

Papers = Mapping[Quoted, float]


def bench_tables(record: BenchRecord, statistic: Literal["mean", "median"], paper: Papers) -> RenderableType:
    """One table for each metric and split.

    A cell holds the mean or median over seeds, in brackets the smallest and the largest, and after a stroke the paper's number.
    """
    places = dict.fromkeys((row.metric, row.split) for row in record.rows)
    return Group(*(_table(record, metric, split, statistic, paper) for metric, split in places))


def _table(record: BenchRecord, metric: str, split: str, statistic: Literal["mean", "median"], paper: Papers) -> Table:
    rows = [row for row in record.rows if (row.metric, row.split) == (metric, split)]
    methods, settings = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("method", "setting"))
    shown = Table(
        box=box.SIMPLE, pad_edge=False, title=literal(f"{record.suite}: {readable(metric)}, {split} ({statistic} [least, most] / paper)"), title_justify="left"
    )
    shown.add_column("method", overflow="fold")
    for setting in settings:
        shown.add_column(literal(setting), justify="right", overflow="fold")
    for method in methods:
        cells = [[row for row in rows if (row.method, row.setting) == (method, setting)] for setting in settings]
        quoted = [paper.get(Quoted(method, setting, split, metric)) for setting in settings]
        shown.add_row(literal(method), *(literal(cell(found, statistic, number)) for found, number in zip(cells, quoted, strict=True)))
    return shown


def cell(rows: list[BenchRow], statistic: Literal["mean", "median"], paper: float | None) -> str:
    """One cell as text."""
    values = [row.value for row in rows if row.value is not None]
    if values:
        middle = statistics.mean(values) if statistic == "mean" else statistics.median(values)
        text = significant(middle)
        if len(values) > 1:
            text += f" [{significant(min(values))}, {significant(max(values))}]"
    else:
        text = rows[0].reason or "" if rows else "-"
    return text if paper is None else f"{text} / {significant(paper)}"
