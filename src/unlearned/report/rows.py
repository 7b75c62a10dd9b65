"""Findings side by side: one row for what was measured where, one cell for each model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from unlearned.records import AuditRecord, Finding, SubjectName
from unlearned.report import words

RETENTION = "retention: share of the forgetting that each attack leaves"


@dataclass
class Row:
    """What several models show of the same thing."""

    entry: str
    metric: str
    split: str
    budget: str
    cells: dict[SubjectName, Finding] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The heading that it stands under: what measured it; retentions of all attacks stand together."""
        return RETENTION if self.metric == "retention" else self.entry

    @property
    def named(self) -> str:
        """What it is called under that heading."""
        return f"{self.entry}, {self.budget}" if self.group == RETENTION else self.what

    @property
    def what(self) -> str:
        """Metric, and how much an attacker spent where that matters."""
        return words.readable(self.metric) + (f" at {self.budget}" if self.budget else "")

    def cell(self, subject: SubjectName, between: str = " ") -> str:
        """Value and interval (with `between` them) of one model; nothing when it was not measured."""
        return words.measured(self.cells[subject], between) if subject in self.cells else ""

    @property
    def gap(self) -> str:
        """Gap of the unlearned model to the reference."""
        return words.gap(self.cells["unlearned"]) if "unlearned" in self.cells else ""

    @property
    def change(self) -> str:
        """Unlearned minus original; nothing unless both have a value in the same unit."""
        before, after = self.cells.get("original"), self.cells.get("unlearned")
        if before is None or after is None or before.value is None or after.value is None or before.unit != after.unit:
            return ""
        return words.difference(after.value - before.value, after.unit)


def side_by_side(findings: Iterable[Finding]) -> list[Row]:
    """Rows in the order of their first finding. A second finding of the same model opens a second row: nothing is overwritten."""
    rows: dict[tuple[str, str, str, str, int], Row] = {}
    for finding in findings:
        budget = words.budget(finding)
        for again in itertools.count():
            key = (finding.entry, finding.metric, finding.split, budget, again)
            row = rows.setdefault(key, Row(finding.entry, finding.metric, finding.split, budget))
            if finding.subject not in row.cells:
                row.cells[finding.subject] = finding
                break
    return list(rows.values())


def single(record: AuditRecord) -> list[Finding]:
    """The findings that are one number each, not a point of an attack's curve."""
    return [f for f in record.findings if f.kind != "attack" or f.budget is None]
