"""Plots as plain data for plotly.js: three shapes that fit any audit and any attack.

Ink, grid and background are set by the page's style sheet, so that a plot follows the theme and the printer without being drawn again.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unlearned.records import Finding, SubjectName, Trial
from unlearned.report import words
from unlearned.report.curves import Curve
from unlearned.report.scales import of_budgets

# Three hues that keep a contrast of 3:1 on white and on the dark page, also for colour-blind eyes; symbols repeat the difference.
COLOURS: dict[SubjectName, str] = {"original": "#7d8793", "unlearned": "#2f78d6", "reference": "#c8741a"}
BANDS: dict[SubjectName, str] = {"original": "rgba(125,135,147,0.16)", "unlearned": "rgba(47,120,214,0.16)", "reference": "rgba(200,116,26,0.16)"}
SYMBOLS: dict[SubjectName, str] = {"original": "circle", "unlearned": "square", "reference": "diamond"}
DASHES: dict[SubjectName, str] = {"original": "dot", "unlearned": "solid", "reference": "dash"}


@dataclass(frozen=True)
class Figure:
    """One plot with its caption and the findings that it shows."""

    title: str
    caption: str
    spec: dict[str, Any]
    findings: tuple[Finding, ...] = ()
    small: bool = False
    rows: tuple[tuple[str, ...], ...] = ()
    """Its numbers as a table, where it shows no findings; the first row is the head."""


def literal(text: str) -> str:
    """Free text for plotly, which reads a small HTML in every label."""
    return html.escape(text, quote=False)


def _shown(findings: Sequence[Finding], subject: SubjectName) -> list[tuple[Finding, float]]:
    return [(f, f.value) for f in findings if f.subject == subject and f.value is not None]


def _hover(finding: Finding) -> str:
    lines = [
        f"<b>{words.SUBJECTS[finding.subject]}</b>",
        literal(" ".join(filter(None, [finding.split, words.budget(finding) and f"at {words.budget(finding)}"]))),
        literal(" ".join(filter(None, [words.measured(finding), finding.interval and f"({finding.interval})"]))),
        f"n = {finding.n}",
    ]
    if finding.gap is not None:
        lines.append(f"gap to the reference {literal(words.difference(finding.gap, finding.unit))}")
    return "<br>".join(lines)


def _errors(points: list[tuple[Finding, float]], colour: str) -> dict[str, Any]:
    shown = [(words.ends(f), value) for f, value in points]
    return {
        "type": "data",
        "symmetric": False,
        "array": [None if ends is None else max(0.0, ends[1] - value) for ends, value in shown],
        "arrayminus": [None if ends is None else max(0.0, value - ends[0]) for ends, value in shown],
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }


def _trace(subject: SubjectName, points: list[tuple[Finding, float]], **parts: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": words.SUBJECTS[subject],
        "hoverinfo": "text",
        "hovertext": [_hover(finding) for finding, _ in points],
        "marker": {"color": COLOURS[subject], "symbol": SYMBOLS[subject], "size": 9},
        **parts,
    }


def axis(unit: str, title: str) -> dict[str, Any]:
    """An axis in a unit."""
    axis: dict[str, Any] = {"title": {"text": literal(title), "standoff": 10}, "zeroline": False, "automargin": True, "nticks": 6}
    return axis | ({"tickformat": ".3~p"} if unit == "share" else {})


def frame(**parts: Any) -> dict[str, Any]:
    """What all plots share, with further parts."""
    return {
        "margin": {"l": 10, "r": 14, "t": 36, "b": 10},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "legend": {"orientation": "h", "x": 0, "yref": "container", "y": 1, "yanchor": "top"},
        "hovermode": "closest",
        **parts,
    }


def _absent(findings: Sequence[Finding]) -> str:
    reasons = dict.fromkeys(f"{words.SUBJECTS[f.subject]}: {f.reason}" for f in findings if f.value is None)
    return f" Without a value: {'; '.join(reasons)}." if reasons else ""


def _range(findings: Sequence[Finding]) -> list[float]:
    ends = [end for f in findings for end in (f.value, *(words.ends(f) or ())) if end is not None]
    margin = 0.06 * (max(ends) - min(ends)) or 0.06 * abs(ends[0]) or 1.0
    return [min(ends) - margin, max(ends) + margin]


def _unit(findings: Sequence[Finding]) -> str:
    return findings[0].unit


def _axis_title(findings: Sequence[Finding]) -> str:
    # The caption names the metric, and ticks in percent name their unit; a title again would take the width of a phone.
    unit = _unit(findings)
    return "" if unit == "share" else unit


def _name(finding: Finding) -> str:
    spent = words.budget(finding)
    return f"{finding.entry}: {words.readable(finding.metric)}" + (f" at {spent}" if spent else "")


def by_split(findings: Sequence[Finding]) -> Figure:
    """One metric over the splits: a dot with its interval for every model. Dots need no zero, so small differences stay visible."""
    splits = [literal(split) for split in dict.fromkeys(f.split for f in findings)]
    traces = []
    for subject in words.SUBJECTS:
        points = _shown(findings, subject)
        if points:
            places = [literal(f.split) for f, _ in points]
            traces.append(_trace(subject, points, x=places, y=[value for _, value in points], error_y=_errors(points, COLOURS[subject])))
    splits_axis = {"type": "category", "categoryorder": "array", "categoryarray": splits, "automargin": True, "showgrid": False, "zeroline": False}
    layout = frame(
        scattermode="group",
        scattergap=0.55,
        xaxis=splits_axis,
        yaxis=axis(_unit(findings), _axis_title(findings)) | {"range": _range(findings)},
        showlegend=True,
    )
    title = f"{_name(findings[0])} by split"
    return Figure(
        title, "One dot for each model, with its interval where one was measured." + _absent(findings), {"data": traces, "layout": layout}, tuple(findings)
    )


def against_reference(findings: Sequence[Finding]) -> Figure:
    """One metric on one split: every model against the line of the reference."""
    traces: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for subject, name in reversed(words.SUBJECTS.items()):
        points = _shown(findings, subject)
        if points:
            row = [name.split(" ")[0]] * len(points)
            traces.append(_trace(subject, points, x=[value for _, value in points], y=row, error_x=_errors(points, COLOURS[subject])))
    for finding, value in _shown(findings, "reference"):
        line = {"color": COLOURS["reference"], "width": 1.5, "dash": "dash"}
        shapes.append({"type": "line", "layer": "between", "yref": "paper", "y0": 0, "y1": 1, "x0": value, "x1": value, "line": line})
        ends = words.ends(finding)
        if ends is not None:
            band = {"fillcolor": BANDS["reference"], "line": {"width": 0}}
            shapes.append({"type": "rect", "layer": "between", "yref": "paper", "y0": 0, "y1": 1, "x0": ends[0], "x1": ends[1], **band})
    rows_axis = {"type": "category", "automargin": True, "showgrid": False, "zeroline": False}
    layout = frame(xaxis=axis(_unit(findings), _axis_title(findings)), yaxis=rows_axis, showlegend=False, shapes=shapes)
    layout["margin"] |= {"t": 10}
    caption = "The dashed line is the reference, the band its interval." if shapes else "No line to compare with: there is no value of a reference."
    title = _name(findings[0]) + ("" if findings[0].split == "all" else f", {findings[0].split}")
    return Figure(title, caption + _absent(findings), {"data": traces, "layout": layout}, tuple(findings), small=True)


def retentions(findings: Sequence[Finding]) -> Figure:
    """What every attack leaves of the forgetting, one row for each, between the line of everything that came back and that of nothing."""
    names = words.of_retentions(findings)
    traces: list[dict[str, Any]] = []
    for subject in ("reference", "unlearned"):
        points = _shown(findings, subject)
        if points:
            rows = [literal(names[id(finding)]) for finding, _ in points]
            traces.append(_trace(subject, points, x=[value for _, value in points], y=rows, error_x=_errors(points, COLOURS[subject])))
    shapes = [{"type": "line", "layer": "below", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": {"dash": "dot", "width": 1}} for x in (0, 1)]
    order = list(dict.fromkeys(literal(name) for name in names.values()))[::-1]
    rows_axis = {"type": "category", "categoryorder": "array", "categoryarray": order, "automargin": True, "showgrid": True, "zeroline": False}
    layout = frame(xaxis=axis("", "share of the forgetting that is left"), yaxis=rows_axis, showlegend=True, shapes=shapes, scattermode="group", scattergap=0.6)
    caption = "Dotted lines: at 1 the attack brought nothing back, at 0 everything. Each attack at the budget where it brings back most."
    return Figure("Retention under every attack", caption + _absent(findings), {"data": traces, "layout": layout}, tuple(findings))


def over_budget(curve: Curve) -> Figure:
    """An attack's curve: one line with its band for every model."""
    traces: list[dict[str, Any]] = []
    scale = of_budgets([f.budget for f in curve.findings if f.budget is not None], curve.budget_unit)

    def places(points: Iterable[Finding]) -> list[float]:
        return [scale.place(f.budget) for f in points if f.budget is not None]

    for subject, points in curve.points.items():
        band = [f for f in points if f.low is not None and f.high is not None]
        if len(band) > 1:
            outline = {"x": places(band + band[::-1]), "y": [f.high for f in band] + [f.low for f in band[::-1]]}
            look = {"mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": BANDS[subject], "hoverinfo": "skip", "showlegend": False}
            traces.append({"type": "scatter", "legendgroup": subject, **outline, **look})
    for subject in words.SUBJECTS:
        shown = _shown(curve.points.get(subject, []), subject)
        if shown:
            line = {"color": COLOURS[subject], "width": 2, "dash": DASHES[subject]}
            place = {"x": places(f for f, _ in shown), "y": [value for _, value in shown]}
            traces.append(_trace(subject, shown, mode="lines+markers", line=line, legendgroup=subject, **place))
    budget_axis = axis("", f"budget of the attack ({curve.budget_unit})" if curve.budget_unit else "budget of the attack")
    marks = {"tickmode": "array", "tickvals": [tick.place for tick in scale.ticks], "ticktext": [literal(tick.text) for tick in scale.ticks]}
    layout = frame(xaxis=budget_axis | marks, yaxis=axis(curve.unit, _axis_title(curve.findings)) | {"rangemode": "tozero"}, showlegend=True)
    title = f"{curve.entry}: {words.readable(curve.metric)} {words.place(curve.split)}"
    return Figure(title, f"{curve.sentence}.{_absent(curve.findings)}", {"data": traces, "layout": layout}, tuple(curve.findings))


# The score, which decides, is drawn like the unlearned model; what it is made of is not told apart by colour alone.
_TRACES = (("#248160", "triangle-up", "dot"), ("#8851d1", "triangle-down", "dash"), ("#2f78d6", "square", "solid"), ("#a45032", "circle", "longdash"))


def tried(trial: Trial) -> Figure:
    """What a method tried: one line for each value, and a vertical line at what was taken."""
    places = list(dict.fromkeys(place for trace in trial.traces for place, _ in trace.points))
    traces = []
    for number, trace in enumerate(trial.traces):
        colour, symbol, dash = _TRACES[number % len(_TRACES)]
        hover = [f"{literal(trial.setting)} {place:g}<br>{literal(trace.name)} {words.number(value, trial.unit)}" for place, value in trace.points]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": literal(trace.name),
                "x": [place for place, _ in trace.points],
                "y": [value for _, value in trace.points],
                "hoverinfo": "text",
                "hovertext": hover,
                "marker": {"color": colour, "symbol": symbol, "size": 9},
                "line": {"color": colour, "width": 2, "dash": dash},
            }
        )
    line = {"color": COLOURS["original"], "width": 1.5, "dash": "dash"}
    shapes = [{"type": "line", "layer": "below", "yref": "paper", "y0": 0, "y1": 1, "x0": place, "x1": place, "line": line} for place in trial.chosen]
    step = 1 if len(places) <= 40 else None
    layout = frame(xaxis=axis("", trial.setting) | {"dtick": step}, yaxis=axis(trial.unit, ""), showlegend=True, shapes=shapes)
    head = (trial.setting, *(trace.name for trace in trial.traces), "")
    values = [dict(trace.points) for trace in trial.traces]
    cells = [[words.number(value[place], trial.unit) if place in value else "" for value in values] for place in places]
    rows = [(f"{place:g}", *row, "taken" if place in trial.chosen else "") for place, row in zip(places, cells, strict=True)]
    caption = f"{trial.caption} Taken: {', '.join(f'{place:g}' for place in trial.chosen)}."
    return Figure(f"{trial.source}: {trial.setting}", caption, {"data": traces, "layout": layout}, rows=(head, *rows))


def over_rounds(findings: Sequence[Finding]) -> Figure:
    """A repair round by round: one line of the unlearned model for each of its shares, so that what comes back is seen beside the holes that close."""
    names = {
        "adjacent_holes": "adjacent holes",
        "new_latent_holes": "new holes per question of the search",
        "knowledge": "knowledge of the forget set",
        "utility": "utility",
    }
    traces = []
    for (metric, name), (colour, symbol, dash) in zip(names.items(), _TRACES, strict=True):
        points = sorted(((f.budget, f) for f in findings if f.metric == metric and f.subject == "unlearned" and f.budget is not None), key=lambda each: each[0])
        shown = [(f, f.value) for _, f in points if f.value is not None]
        if shown:
            look = {"marker": {"color": colour, "symbol": symbol, "size": 9}, "line": {"color": colour, "width": 2, "dash": dash}}
            place = {"x": [f.budget for f, _ in shown], "y": [value for _, value in shown], "error_y": _errors(shown, colour)}
            traces.append(_trace("unlearned", shown, mode="lines+markers", **look, **place) | {"name": name})
    layout = frame(xaxis=axis("", "round of repair; 0: as it was unlearned") | {"dtick": 1}, yaxis=axis("share", "") | {"rangemode": "tozero"}, showlegend=True)
    caption = "The unlearned model after each round. Latent holes are searched for anew each time; probes that a round has retained are in the table."
    return Figure("Repair, round by round", caption, {"data": traces, "layout": layout}, tuple(findings))
