"""Which findings answer which question. An audit that is not named here is shown with the others: nothing is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from unlearned.records import Answer, AuditRecord, Finding, Holes, Rehearsals, Trial
from unlearned.report import plots, words
from unlearned.report.curves import curves
from unlearned.report.holes import map_of
from unlearned.report.plots import Figure
from unlearned.report.rows import Row, side_by_side


class Question(NamedTuple):
    """What a reader wants to know, and the audits that answer it."""

    anchor: str
    title: str
    lead: str
    empty: str = ""
    audits: tuple[str, ...] = ()


_OF_IMAGES = ("generation", "image-scores")
FORGOTTEN = Question(
    "forgotten",
    "What was forgotten",
    "On the forget set the unlearned model should do what the retrained model does: not better, and not worse. Elsewhere it should not change.",
    "No audit measured what the model can do.",
    (
        "utility",
        "deviation-score",
        "memorization",
        "answer-ranks",
        "refusal-quality",
        "output-distance",
        "klom",
        "neurips-score",
        "zrf",
        "generation",
        "image-scores",
    ),
)
ANSWERS = Question(
    "answers",
    "What the models say",
    "The same questions, put to each model. A token's probability is that of the true answer's token after the true tokens before it: it tells whether an "
    "answer that is no longer said is still expected.",
    audits=("answers",),
)
HOLES = Question(
    "holes",
    "What broke by accident",
    "Questions about harmless things near what was forgotten, which the original answers well, the unlearned model does not, and the forget set would not "
    "answer. Adjacent probes are the same for every method; latent ones were searched for on this model. Scores run from 1 to 10.",
    audits=("knowledge-holes", "repair"),
)
COST = Question(
    "cost",
    "What it cost",
    "Forgetting has two prices: what the model lost elsewhere, and the work that it took. A ratio below 1 is less work than retraining.",
    "No audit compared the work with retraining.",
    ("cost",),
)
LEAKS = Question(
    "leaks",
    "What leaks",
    "Less leakage than a retrained model shows is a leak too: it tells that these samples were singled out.",
    "No audit measured what the model gives away about who was in its data.",
    ("membership", "skipped-points", "text-membership", "u-lira", "rmia", "svc-mia", "mia-nn"),
)
RETURNS = Question(
    "returns",
    "Does it come back?",
    "An attacker tries to bring the knowledge back. The curve of the retrained model is the zero line: it never had that knowledge.",
    "No attack was run, so nothing is known about how easily the knowledge comes back.",
    ("relearn-time",),
)
OTHER = Question("other", "Other findings", "")
QUESTIONS = (FORGOTTEN, ANSWERS, HOLES, COST, LEAKS, RETURNS, OTHER)
CHOICE = Question("choice", "What the method chose", "Before it chose a setting by itself, the method tried several values.")

REHEARSED = Question(
    "rehearsed",
    "What the method rehearsed",
    "At each step the method asked what it would reach after some fine-tunings of a pool, and followed a gradient through them: the hypergradient.",
)


def question_of(audit: str, kind: Literal["audit", "attack"]) -> Question:
    """What an audit answers; every attack asks what comes back."""
    return RETURNS if kind == "attack" else next((question for question in QUESTIONS if audit in question.audits), OTHER)


@dataclass(frozen=True)
class Section:
    """One question, what was drawn for it, and the findings that no plot shows."""

    anchor: str
    title: str
    lead: str
    empty: str
    figures: tuple[Figure, ...]
    unplotted: tuple[Finding, ...]
    elsewhere: tuple[Row, ...] = ()
    answers: tuple[Answer, ...] = ()
    holes: tuple[Holes, ...] = ()
    labels: tuple[str, ...] = ()
    """Whether what was forgotten is asleep or gone, in sentences."""
    rehearsals: tuple[Rehearsals, ...] = ()


MOST = 6
"""Plots of one audit; what it measured beyond them stands in the table."""


def sections(record: AuditRecord) -> list[Section]:
    """All findings of the record, each in exactly one section (as figure or table)."""
    of = {question: [f for f in record.findings if question_of(f.audit, f.kind) is question] for question in QUESTIONS}
    elsewhere = side_by_side(f for f in of[FORGOTTEN] if f.audit == "utility" and not f.split.startswith("forget") and f.split != "all")
    return [
        _section(FORGOTTEN, of[FORGOTTEN], _drawn(of[FORGOTTEN])),
        replace(_section(ANSWERS, of[ANSWERS], _drawn(of[ANSWERS])), answers=tuple(shown for shown in record.exhibits if isinstance(shown, Answer))),
        _holes(record, of[HOLES], elsewhere),
        _section(COST, of[COST], [], elsewhere=tuple(elsewhere)),
        _section(LEAKS, of[LEAKS], _drawn(of[LEAKS], split_by_split=True)),
        replace(_section(RETURNS, of[RETURNS], _returns(of[RETURNS])), labels=tuple(words.labels(of[RETURNS]))),
        _section(OTHER, of[OTHER], _drawn(of[OTHER])),
        _section(CHOICE, [], [plots.tried(shown) for shown in record.exhibits if isinstance(shown, Trial)]),
        replace(_section(REHEARSED, [], []), rehearsals=tuple(shown for shown in record.exhibits if isinstance(shown, Rehearsals))),
    ]


def _holes(record: AuditRecord, findings: Sequence[Finding], benchmark: Sequence[Row]) -> Section:
    """Maps, what was measured of the probes, and beside it what a benchmark saw of the same unlearning."""
    shown = [exhibit for exhibit in record.exhibits if isinstance(exhibit, Holes)]
    beside = side_by_side(f for f in findings if f.budget is None and f.metric.endswith(("_score", "_share_1")))
    rounds = [f for f in findings if f.audit == "repair"]
    drawn = [plots.over_rounds(rounds)] if rounds else []
    maps = [map_of(each) for each in shown if each.probes]
    figures = [*(replace(figure, small=len(maps) > 1) for figure in maps), *drawn, *_drawn([f for f in findings if f.audit != "repair"])]
    return replace(_section(HOLES, findings, figures, elsewhere=(*benchmark, *beside) if beside else ()), holes=tuple(shown))


def _section(question: Question, findings: Sequence[Finding], figures: Sequence[Figure], *, elsewhere: tuple[Row, ...] = ()) -> Section:
    shown = {id(f) for figure in figures for f in figure.findings}
    unplotted = tuple(f for f in findings if id(f) not in shown)
    return Section(question.anchor, question.title, question.lead, question.empty, tuple(figures), unplotted, elsewhere)


def _drawn(findings: Sequence[Finding], *, split_by_split: bool = False) -> list[Figure]:
    """A plot for each metric of which two models have a value: over the splits, or each split against the line of the reference."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.entry, f.metric, f.unit, words.budget(f), f.split if split_by_split else ""), []).append(f)
    figures: dict[str, list[Figure]] = {}
    for (entry, *_), group in groups.items():
        valued = [f for f in group if f.value is not None]
        if len({f.subject for f in valued}) > 1:
            draw = plots.by_split if len({f.split for f in valued}) > 1 else plots.against_reference
            figures.setdefault(entry, []).append(draw(group))
    return [replace(figure, small=len(several) > 2 or figure.small) for several in figures.values() for figure in several[:MOST]]


def _returns(findings: Sequence[Finding]) -> list[Figure]:
    """What each attack leaves, if there are several; the curves of attacks; then what was measured once: at a single budget, or without any."""
    kept = [f for f in findings if f.metric == "retention" and f.kind == "attack"]
    together = len({(f.entry, f.budget_unit) for f in kept if f.value is not None}) > 1
    several = [curve for curve in curves(findings) if len({f.budget for f in curve.findings}) > 1]
    shown = {id(f) for curve in several for f in curve.findings} | ({id(f) for f in kept} if together else set())
    drawn = [plots.over_budget(curve) for curve in several]
    figures = [replace(figure, small=len(drawn) > FEW) for figure in drawn if figure.spec["data"]]
    return [*([plots.retentions(kept)] if together else []), *figures, *_drawn([f for f in findings if id(f) not in shown])]


FEW = 3
"""Curves of attacks that are drawn at full width."""
