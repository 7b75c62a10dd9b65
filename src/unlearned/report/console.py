"""The summary that a run ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from unlearned.records import AuditRecord, Check, CompareRecord, Cost, Finding, SubjectName
from unlearned.report import words
from unlearned.report.curves import curves
from unlearned.report.rows import Row, side_by_side, single
from unlearned.report.several import caveats, columns

COLOURS = {"passed": "green", "failed": "red", "undecided": "yellow"}


def literal(text: str, style: str = "") -> Text:
    """One line of text as it is: rich reads no markup in a `Text`, and a control code could rewrite what the terminal already shows."""
    return Text("".join(c if c.isprintable() else (" " if c.isspace() else f"\\x{ord(c):02x}") for c in text), style=style)


def summary(record: AuditRecord) -> RenderableType:
    """Verdict, numbers side by side, checks, costs and what attacks bring back."""
    verdict = record.verdict
    parts: list[RenderableType] = [Text.assemble((words.STATUS[verdict.status], f"bold {COLOURS[verdict.status]}"), "  ", literal(verdict.headline, "bold"))]
    # The lines below the table say what it cost.
    numbers = [finding for finding in single(record) if not (record.costs and finding.audit == "cost")]
    parts.append(table(numbers))
    parts.extend(_checks(verdict.checks))
    parts.extend(_pruning(record))
    parts.extend(_cost(name, cost) for name, cost in record.costs.items())
    parts.extend(literal(curve.sentence) for curve in curves(record.findings))
    return Group(*parts)


def attacks(findings: Sequence[Finding], skipped: Mapping[str, str]) -> RenderableType:
    """The numbers that each attack comes to, such as the retention; its curves in words; and what was left out and why."""
    numbers = [f for f in findings if f.budget is None]
    parts: list[RenderableType] = [table(numbers)]
    parts.extend(literal(curve.sentence) for curve in curves(findings))
    parts.extend(literal(sentence, "bold") for sentence in words.labels(findings))
    parts.extend(literal(f"skipped {name}: {reason}", "yellow") for name, reason in skipped.items())
    return Group(*parts)


def table(findings: Sequence[Finding]) -> RenderableType:
    """The models side by side, one line for each thing that was measured; below it why gaps and values are absent, each reason once."""
    rows = side_by_side([f for f in findings if f.value is not None])
    referred = any("reference" in row.cells for row in rows)
    subjects = [subject for subject in words.SUBJECTS if referred or subject != "reference"]
    shown = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))  # six columns within eighty
    for heading in ("what", "split"):
        shown.add_column(heading, overflow="fold")
    for heading in (*(words.SUBJECTS[subject] for subject in subjects), *(["gap"] if referred else [])):
        shown.add_column(heading, justify="right", overflow="fold")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        name, own = f"{row.entry} {row.what}", row.cells.get("unlearned")
        gap = row.gap
        if own is not None and own.gap is None:
            gap = "-"
            reasons.setdefault(own.reason or "", []).append(name)
        shown.add_row(literal(name), literal(row.split), *(_cell(row, subject) for subject in subjects), *([literal(gap)] if referred else []))
    notes = [_note("no gap", reason, [] if len(names) == len(rows) else names) for reason, names in reasons.items()]
    return Group(*([shown] if rows else []), *notes, *_absent([f for f in findings if f.value is None]))


def _absent(findings: Sequence[Finding]) -> list[Text]:
    """One line for each reason: a missing reference is the reason of many."""
    names: dict[str, list[str]] = {}
    for finding in findings:
        names.setdefault(finding.reason or "", []).append(f"{finding.entry} {words.readable(finding.metric)}")
    return [_note("not measured", reason, several) for reason, several in names.items()]


def _note(what: str, reason: str, names: Sequence[str]) -> Text:
    """Of which things it is true and why; without names of all."""
    return literal(f"{what}, {reason}" + (f": {', '.join(dict.fromkeys(names))}" if names else ""), "dim")


def _cell(row: Row, subject: SubjectName) -> Text:
    value, *rest = row.cell(subject, "\n").split("\n")
    return Text("\n").join([literal(value), *(literal(line, "dim") for line in rest)])


def _checks(checks: Sequence[Check]) -> list[Text]:
    """One line for each check; those that have no value for the same reason share one."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for check in checks:
        key = (words.outcome(check), check.words) + ((check.name,) if check.value is not None or check.passed is not None else ())
        lines.setdefault(key, []).append(check.name)
    return [_check(word, ", ".join(names), said) for (word, said, *_), names in lines.items()]


def _check(word: str, names: str, said: str) -> Text:
    return Text.assemble((f"{word:<9}", COLOURS[word]), "  ", literal(names), ": ", literal(said))


def _pruning(record: AuditRecord) -> list[Text]:
    pruning = record.pruning
    if pruning is None:
        return []
    bound = "" if pruning.bound is None else f" To first order that changes {pruning.bound_of}, by at most {words.significant(pruning.bound)}."
    rule = f"left out: {pruning.rule}, by {pruning.score['name']}.{bound}"
    return [literal(pruning.statement, "bold"), literal(rule), literal(f"the gate: {pruning.gate_words}"), *(literal(note, "yellow") for note in pruning.notes)]


def _cost(name: str, cost: Cost) -> Text:
    numbers = [
        f"{words.number(cost.wall_seconds, 'seconds')} wall",
        f"{words.number(cost.cpu_seconds, 'seconds')} CPU",
        f"{words.number(cost.peak_memory_bytes, 'bytes')} peak memory",
        f"{words.significant(cost.samples_seen)} samples seen",
        f"{words.significant(cost.steps)} steps",
    ]
    return literal(f"cost of {words.model(name)}: " + ", ".join(numbers))


def comparison(record: CompareRecord) -> RenderableType:
    """One line for each run with the numbers that tell most, under those of the original and the retrained models."""
    told = [column for column in columns(record) if column.telling]
    shown = Table(box=box.SIMPLE, pad_edge=False, padding=0)  # eight numbers beside a name, within eighty columns
    shown.add_column("method", overflow="fold")
    shown.add_column("verdict", overflow="fold")
    for column in told:
        shown.add_column(literal(column.heading), justify="right", overflow="fold")
    for subject in ("original", "reference"):
        shown.add_row(literal(words.SUBJECTS[subject].partition(" ")[0], "dim"), "", *(literal(column.shared(subject), "dim") for column in told))
    shown.add_section()
    for position, run in enumerate(record.runs):
        status = run.record.verdict.status
        shown.add_row(literal(run.name), Text(status, COLOURS[status]), *(literal(column.text(position)) for column in told))
    about = [literal(f"{column.heading}: {column.about}", "dim") for column in told]
    return Group(shown, *about, *(literal(sentence, "yellow") for sentence in caveats(record)))
