"""What attacks share: knowledge of a model on a set, and curves over the attacker's budget as findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from unlearned.data.samples import Samples
from unlearned.evidence.comparison import Measured, compare
from unlearned.evidence.statistics import t_interval
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, SubjectName

Curves = Mapping[SubjectName, Sequence[Sequence[Measured]]]
"""For original, unlearned and references: one curve per model, its points in the order of the budgets. A curve may end early."""


def knowledge_of(subject: Subject, model: nn.Module, samples: Samples) -> Measured:
    """Mean knowledge with its t interval over the samples."""
    values = subject.engine.evaluate(model, samples, subject.engine.task.knowledge).numpy()
    return Measured(float(values.mean()), t_interval(values, "samples"), len(values))


def findings_of_curves(
    attack: str, metric: str, split: str, curves: Curves, budgets: Sequence[float], budget_unit: str, *, unit: str = "share"
) -> list[Finding]:
    """All points of the curves, budget by budget."""
    findings = []
    for position, budget in enumerate(budgets):
        measured = {who: [curve[position] for curve in several if position < len(curve)] for who, several in curves.items()}
        findings += compare(attack, metric, split, measured, unit=unit, kind="attack", budget=budget, budget_unit=budget_unit)
    return findings
