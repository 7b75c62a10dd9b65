"""Which findings answer which question. An audit that is not named here is shown with the others: nothing is hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from unlearned.records import AuditRecord, Finding
from unlearned.report import plots
from unlearned.report.curves import curves
from unlearned.report.plots import Figure
from unlearned.report.rows import Row, side_by_side

FORGOTTEN = ("utility", "output-distance")
COST = ("cost",)
LEAKS = ("membership",)


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


def sections(record: AuditRecord) -> list[Section]:
    """All findings of the record, each in exactly one section (as figure or table)."""
    attacks = [f for f in record.findings if f.kind == "attack"]
    audits = [f for f in record.findings if f.kind == "audit"]
    known = {*FORGOTTEN, *COST, *LEAKS}
    drawn = [plots.over_budget(curve) for curve in curves(attacks)]
    return [
        _section(
            "forgotten",
            "What was forgotten",
            "On the forget set the unlearned model should do what the retrained model does: not better, and not worse. Elsewhere it should not change.",
            "No audit measured what the model can do.",
            [f for f in audits if f.audit in FORGOTTEN],
            _splits,
        ),
        _section(
            "cost",
            "What it cost",
            "Forgetting has two prices: what the model lost elsewhere, and the work that it took. A ratio below 1 is less work than retraining.",
            "No audit compared the work with retraining.",
            [f for f in audits if f.audit in COST],
            lambda _: [],
            elsewhere=tuple(side_by_side(f for f in audits if f.audit == "utility" and not f.split.startswith("forget") and f.split != "all")),
        ),
        _section(
            "leaks",
            "What leaks",
            "Less leakage than a retrained model shows is a leak too: it tells that these samples were singled out.",
            "No audit measured what the model gives away about who was in its data.",
            [f for f in audits if f.audit in LEAKS],
            _reference_lines,
        ),
        Section(
            "returns",
            "What comes back",
            "An attacker tries to bring the knowledge back. The curve of the retrained model is the zero line: it never had that knowledge.",
            "No attack was run, so nothing is known about how easily the knowledge comes back.",
            tuple(figure for figure in drawn if figure.spec["data"]),
            tuple(f for f in attacks if f.budget is None) + tuple(f for figure in drawn if not figure.spec["data"] for f in figure.findings),
        ),
        _section("other", "Other findings", "", "", [f for f in audits if f.audit not in known], lambda _: []),
    ]


def _section(
    anchor: str,
    title: str,
    lead: str,
    empty: str,
    findings: Sequence[Finding],
    draw: Callable[[Sequence[Finding]], list[Figure]],
    *,
    elsewhere: tuple[Row, ...] = (),
) -> Section:
    figures = draw(findings)
    shown = {id(f) for figure in figures for f in figure.findings}
    return Section(anchor, title, lead, empty, tuple(figures), tuple(f for f in findings if id(f) not in shown), elsewhere)


def _groups(findings: Iterable[Finding], key: Callable[[Finding], tuple[str, ...]]) -> list[list[Finding]]:
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        groups.setdefault(key(finding), []).append(finding)
    return [group for group in groups.values() if any(f.value is not None for f in group)]


def _splits(findings: Sequence[Finding]) -> list[Figure]:
    groups = _groups(findings, lambda f: (f.audit, f.metric, f.unit))
    return [plots.by_split(group) for group in groups if len({f.split for f in group}) > 1]


def _reference_lines(findings: Sequence[Finding]) -> list[Figure]:
    return [plots.against_reference(group) for group in _groups(findings, lambda f: (f.audit, f.metric, f.split, f.unit))]
