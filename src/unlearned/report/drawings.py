"""Drawings as plain numbers: a row of dots for each method, curves, and points in a plane. Templates place them as SVG that fits any width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from unlearned.records import Finding
from unlearned.report import words
from unlearned.report.scales import Scale, Tick


class Span(NamedTuple):
    """From one place to another, in percent."""

    low: float
    high: float


class Dot(NamedTuple):
    """A mark in a row."""

    place: float
    kind: str = ""
    """Nothing for the value itself; `seed` or `paper` for what stands beside it."""


@dataclass(frozen=True)
class DotRow:
    """One method: its dots, and the numbers that they show."""

    name: str
    look: int | str | None = None
    """Position of the method in the page, or the model that all share."""
    dots: tuple[Dot, ...] = ()
    span: Span | None = None
    """The interval."""
    texts: tuple[str, ...] = ()
    """Cells that follow the drawing."""
    interval: str = ""
    note: str = ""
    """Why there is no value."""
    lines: tuple[float, ...] = ()
    """Where the reference lies."""
    bands: tuple[Span, ...] = ()
    """The reference's interval."""


@dataclass(frozen=True)
class Dots:
    """A dot plot that is a table: one row for each method, drawn and in numbers."""

    title: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[DotRow, ...]
    ticks: tuple[Tick, ...]


class Mark(NamedTuple):
    """A point with what is said about it."""

    x: float
    y: float
    told: str
    across: Span | None = None
    """Interval along x."""
    up: Span | None = None
    """Interval along y."""


@dataclass(frozen=True)
class Line:
    """One curve, or a lone point."""

    look: int | str
    marks: tuple[Mark, ...]
    band: str = ""
    """Corners of the interval's area."""
    faint: bool = False

    @property
    def path(self) -> str:
        """Its corners, as SVG writes them."""
        return " ".join(f"{mark.x},{mark.y}" for mark in self.marks)


@dataclass(frozen=True)
class Chart:
    """Curves or points in a plane. Places are in percent from the left and from the top."""

    title: str
    lines: tuple[Line, ...]
    x: Scale
    y: Scale
    x_title: str = ""
    y_title: str = ""
    look: int | None = None
    """The method that it is about, if it is about one."""
    zero: tuple[float | None, float | None] = field(default=(None, None))
    """Where the reference lies along x and along y."""

    @property
    def rows(self) -> list[Tick]:
        """Ticks of the vertical axis, from the top."""
        return [Tick(100 - tick.place, tick.text) for tick in self.y.ticks]


def interval_of(finding: Finding, scale: Scale) -> Span | None:
    """The finding's interval on a scale."""
    shown = words.ends(finding)
    return None if shown is None else Span(scale.place(shown[0]), scale.place(shown[1]))


def ends(findings: Iterable[Finding]) -> list[float]:
    """All numbers that a drawing of findings must hold."""
    return [end for f in findings for end in (f.value, *(words.ends(f) or ())) if end is not None]


def curve_line(look: int | str, points: Sequence[Finding], x: Scale, y: Scale, name: str, *, faint: bool = False) -> Line:
    """An attack's curve on one model."""
    shown = [(p, p.budget, p.value) for p in points if p.value is not None and p.budget is not None]
    marks = tuple(Mark(x.place(spent), round(100 - y.place(value), 3), f"{name}, {_at(p)}: {_measured(p)}") for p, spent, value in shown)
    area = [(x.place(p.budget), p.low, p.high) for p, _, _ in shown if p.budget is not None and p.low is not None and p.high is not None]
    return Line(look, marks, "" if faint else band_of(area, y), faint)


def band_of(area: Sequence[tuple[float, float, float]], y: Scale) -> str:
    """Corners of the area between lows and highs, as SVG writes them; nothing for fewer than two places.

    Args:
        area: the place along x in percent, with the low and the high end of what is shown.
        y: their scale.
    """
    corners = [f"{place},{100 - y.place(high):.3f}" for place, _, high in area] + [f"{place},{100 - y.place(low):.3f}" for place, low, _ in reversed(area)]
    return " ".join(corners) if len(area) > 1 else ""


def _at(point: Finding) -> str:
    return f"at {words.budget(point)}"


def _measured(finding: Finding) -> str:
    gap = "" if finding.gap is None else f", {words.difference(finding.gap, finding.unit)} to the reference"
    return words.measured(finding) + gap
