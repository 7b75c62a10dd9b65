"""Knowledge holes on a page: the map of the probes, the worst of them, and what was checked of those that are reported."""

from __future__ import annotations

from typing import Any

from unlearned.records import Holes, Probe
from unlearned.report import words
from unlearned.report.plots import COLOURS, Figure, axis, frame, literal

MOST = 10
"""Holes that are shown in full."""
WITHHELD = "withheld"
# Grey where nothing was lost, as the original model is drawn; then through orange to red, which colour-blind eyes tell apart by their lightness, too.
_LOSS = [[0.0, "#7d8793"], [0.5, "#d98a2b"], [1.0, "#c0262b"]]
_SYMBOLS = {"adjacent": "circle", "latent": "diamond"}


def loss_of(probe: Probe) -> float | None:
    """Score of the original minus that of the unlearned model; None where one was not scored."""
    before, after = probe.scores.get("original"), probe.scores.get("unlearned")
    return None if before is None or after is None else before - after


def worst(shown: Holes) -> list[Probe]:
    """The holes that lost most, those whose content is not withheld first."""
    holes = [probe for probe in shown.probes if probe.hole]
    return sorted(holes, key=lambda probe: (probe.question is None, -(loss_of(probe) or 0.0)))[:MOST]


def checked(shown: Holes) -> str:
    """What was checked of the reported holes, in words."""
    holes = [probe for probe in shown.probes if probe.hole]
    if not holes:
        return f"No probe is a hole: none has a score of {shown.good:g} or more for the original and of {shown.bad:g} or less for the unlearned model."
    before = min(score for probe in holes if (score := probe.scores["original"]) is not None)
    after = max(score for probe in holes if (score := probe.scores["unlearned"]) is not None)
    overlaps = [probe.overlap for probe in holes if probe.overlap is not None]
    said = f"Of the {len(shown.probes)} probes {len(holes)} are holes. Each was checked: the original's score is {shown.good:g} or more (lowest {before:.1f}), "
    said += f"the unlearned model's {shown.bad:g} or less (highest {after:.1f})"
    if not overlaps:
        return f"{said}."
    share = words.number(max(overlaps), "share")
    return f"{said}, it can be understood, and no forget text answers it. A forget text has at most {share} of a question, by the weight of its words."


def backends(shown: Holes) -> str:
    """Who did what, in words."""
    said = [f"{words.readable(name)}: {label}" for name, label in shown.backends.items()]
    second = shown.agreement or "No second judge was asked."
    return f"{'; '.join(said)}. {second}"


def map_of(shown: Holes) -> Figure:
    """Probes on a plane, coloured by what they lost; alike probes are near each other, holes are ringed."""
    traces: list[dict[str, Any]] = []
    for kind, symbol in _SYMBOLS.items():
        several = [probe for probe in shown.probes if probe.of == kind]
        if several:
            losses = [max(0.0, loss_of(probe) or 0.0) for probe in several]
            rings = {"width": [2.5 if probe.hole else 0 for probe in several], "color": COLOURS["unlearned"]}
            scale: dict[str, Any] = {"colorscale": _LOSS, "cmin": 0, "cmax": 9, "color": losses, "showscale": not traces, "colorbar": _bar()}
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"{kind} probes",
                    "x": [probe.place[0] for probe in several],
                    "y": [probe.place[1] for probe in several],
                    "hoverinfo": "text",
                    "hovertext": [_hover(probe) for probe in several],
                    "marker": {"symbol": symbol, "size": 10, "opacity": 0.9, "line": rings, **scale},
                }
            )
    bare = {"showticklabels": False, "showgrid": False}
    layout = frame(xaxis=axis("", "") | bare, yaxis=axis("", "") | bare, showlegend=True)
    layout["legend"] |= {"itemsizing": "constant"}
    caption = (
        "Probes that are alike are near each other: the first two principal components. Colour: score of the original minus score of the unlearned model. "
    )
    caption += "Rings: holes."
    head = ("Probe", "Question", "Hole", *(words.SUBJECTS[who] for who in words.SUBJECTS))
    title = "Map of the probes" + (f", after {shown.after}" if shown.after else "")
    return Figure(title, caption, {"data": traces, "layout": layout}, rows=(head, *(_row(probe) for probe in shown.probes)))


def score(probe: Probe, who: str) -> str:
    """A model's score of a probe, or nothing."""
    value = {str(name): each for name, each in probe.scores.items()}.get(who)
    return "" if value is None else f"{value:.1f}"


def _bar() -> dict[str, Any]:
    return {"title": {"text": "lost", "side": "right"}, "thickness": 10, "len": 0.9, "outlinewidth": 0, "tickvals": [0, 3, 6, 9]}


def _hover(probe: Probe) -> str:
    lines = [f"<b>{literal(_broken(probe.question)) if probe.question is not None else WITHHELD}</b>"]
    for who, name in words.SUBJECTS.items():
        if who in probe.scores:
            said = f" {literal(_broken(probe.answers[who]))}" if who in probe.answers else ""
            lines.append(f"{name}, {score(probe, who) or 'not scored'}:{said}")
    if probe.overlap is not None:
        lines.append(f"the nearest forget text has {words.number(probe.overlap, 'share')} of it")
    return "<br>".join(line.replace("\n", "<br>") for line in lines)


def _broken(text: str, width: int = 60) -> str:
    """Free text in lines, since a box beside the pointer does not wrap."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width)) or "(nothing)"


def _row(probe: Probe) -> tuple[str, ...]:
    return (probe.of, WITHHELD if probe.question is None else probe.question, "yes" if probe.hole else "", *(score(probe, who) for who in words.SUBJECTS))
