"""Curves of attacks: what comes back against what the attacker spends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from unlearned.records import Finding, SubjectName
from unlearned.report import words

TIME = ("steps", "epochs", "")
"""Units of budgets that an attacker spends one after the other, or their first words."""


@dataclass
class Curve:
    """One metric of one attack on one split, for every model."""

    entry: str
    metric: str
    split: str
    budget_unit: str
    unit: str
    points: dict[SubjectName, list[Finding]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What it shows; curves of other models with the same key can be laid over it."""
        return (self.entry, self.metric, self.split, self.budget_unit, self.unit)

    @property
    def findings(self) -> list[Finding]:
        """All points, model by model."""
        return [finding for points in self.points.values() for finding in points]

    @property
    def worst(self) -> Finding | None:
        """The unlearned model's point with the largest gap, in either direction; without references the one with the largest value."""
        points = [point for point in self.points.get("unlearned", []) if point.value is not None]
        return max(points, key=lambda point: abs(point.gap) if point.gap is not None else point.value or 0.0, default=None)

    @property
    def sentence(self) -> str:
        """For an attack that takes time, from where to where the unlearned model goes; for others, where it is farthest from the reference."""
        name = f"{self.entry}: {words.readable(self.metric)} {words.place(self.split)}"
        worst = self.worst
        if worst is None or worst.value is None:
            return f"{name} was not measured for the unlearned model"
        if self.budget_unit.partition(" ")[0] not in TIME:
            value, at = words.number(worst.value, self.unit), words.budget(worst)
            if worst.gap is None:
                return f"{name} is highest at {at}, with {value}; {worst.reason}"
            return f"{name} is farthest from a retrained model's at {at}: {value}, and there {words.number(worst.value - worst.gap, self.unit)}"
        points = [(point.budget or 0.0, point.value) for point in self.points["unlearned"] if point.value is not None]
        (_, first), (spent, last) = points[0], points[-1]
        start, end = words.number(first, self.unit), words.number(last, self.unit)
        amount = words.amount(spent, self.budget_unit)
        turn = "rises" if last > first else "falls"
        course = f"stays at {end} after {amount}" if start == end else f"{turn} from {start} to {end} in {amount}"
        return f"{name} {course}; {self._reference(spent)}"

    def _reference(self, spent: float) -> str:
        points = self.points.get("reference", [])
        same = [point.value for point in points if point.value is not None and point.budget == spent]
        if same:
            return f"a retrained model reaches {words.number(same[0], self.unit)}"
        reasons = [point.reason for point in points if point.reason] or [point.reason for point in self.points["unlearned"] if point.reason]
        return reasons[0] if reasons else "no retrained model was attacked as long"


def curves(findings: Iterable[Finding]) -> list[Curve]:
    """The curves among the findings of attacks, points sorted by budget."""
    found: dict[tuple[str, str, str, str, str], Curve] = {}
    for finding in findings:
        if finding.kind == "attack" and finding.budget is not None:
            key = (finding.entry, finding.metric, finding.split, finding.budget_unit or "", finding.unit)
            found.setdefault(key, Curve(*key)).points.setdefault(finding.subject, []).append(finding)
    for curve in found.values():
        for points in curve.points.values():
            points.sort(key=lambda point: point.budget or 0.0)
    return list(found.values())
