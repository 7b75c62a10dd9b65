"""What attacks share: knowledge of a model on a set, and curves over the attacker's budget as findings, with the retention ratio that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from unlearned.attacks._retention import TOO_LITTLE, before_and_after
from unlearned.data.samples import Samples
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import Array, t_interval
from unlearned.evidence.subject import Subject
from unlearned.records import NO_REFERENCE, Finding, SubjectName

Curves = Mapping[SubjectName, Sequence[Sequence[Measured]]]
"""For original, unlearned and references: one curve per model, its points in the order of the budgets. A curve may end early."""
SampleCurves = Mapping[SubjectName, Sequence[Sequence[Array]]]
"""The same with the knowledge of each sample, (N,), at each point."""


def knowledge_of(subject: Subject, model: nn.Module, samples: Samples) -> Array:
    """Knowledge of each sample, (N,). That of the subject's own models on the forget set is measured once for all attacks."""
    if samples is subject.problem.forget:
        return subject.value(subject.engine.task.knowledge, "forget", model).numpy()
    return subject.engine.evaluate(model, samples, subject.engine.task.knowledge).numpy()


def mean_of(values: Array) -> Measured:
    """Their mean with its t interval over the samples."""
    return Measured(float(values.mean()), t_interval(values, "samples"), len(values))


def curves_of(subject: Subject, curve: Callable[[nn.Module], list[Array]]) -> dict[SubjectName, list[list[Array]]]:
    """The curve of each model."""
    found: dict[SubjectName, list[list[Array]]] = {"original": [], "unlearned": [], "reference": []}
    for who, model in subject.models():
        found[who].append(curve(model))
    return found


def findings_of_curves(
    attack: str, metric: str, split: str, curves: Curves, budgets: Sequence[float], budget_unit: str, *, unit: str = "share"
) -> list[Finding]:
    """All points of the curves, budget by budget."""
    findings = []
    for position, budget in enumerate(budgets):
        measured = {who: [curve[position] for curve in several if position < len(curve)] for who, several in curves.items()}
        findings += compare(attack, metric, split, measured, unit=unit, kind="attack", budget=budget, budget_unit=budget_unit)
    return findings


def findings_of_knowledge(
    subject: Subject,
    attack: str,
    split: str,
    curves: SampleCurves,
    budgets: Sequence[float],
    budget_unit: str,
    *,
    metric: str = "knowledge",
    before: Mapping[SubjectName, Sequence[Array]] | None = None,
) -> list[Finding]:
    """The mean over the samples at all points of the curves, and `retention`: which share of the forgetting is left where the attacker does best.

    Args:
        subject: gives the seed of the bootstrap.
        attack: its name.
        split: what was measured.
        curves: of every model; the original's may end at its first point.
        budgets: of the points, in their order.
        budget_unit: of the budgets. It tells the retentions of an attack's curves from each other.
        metric: what was measured.
        before: values of each model that was not attacked; None: the first points of the curves.
    """
    means = {who: [[mean_of(point) for point in curve] for curve in several] for who, several in curves.items()}
    findings = findings_of_curves(attack, metric, split, means, budgets, budget_unit)
    unattacked = before or {who: [curve[0] for curve in several] for who, several in curves.items()}
    attacked = {who: [curve if before else curve[1:] for curve in several] for who, several in curves.items()}
    [known] = unattacked["original"]
    measured: dict[SubjectName, list[Measured]] = {"unlearned": [], "reference": []}
    reasons: dict[SubjectName, str] = {}
    for who, found in measured.items():
        for number, (start, points) in enumerate(zip(unattacked[who], attacked[who], strict=True)):
            seed = derive_seed(subject.engine.seed, attack, metric, split, budget_unit, who, number)
            one = before_and_after(known, start, points, seed) if points else "the attack has a single budget"
            if isinstance(one, str):
                reasons[who] = one
            else:
                found.append(one)
    if not measured["unlearned"]:
        reason = reasons.get("unlearned", TOO_LITTLE)
        return [*findings, _with_unit(absent(attack, "retention", split, reason, unit="ratio", kind="attack"), budget_unit)]
    no_reference = f"no reference has a ratio: {reasons['reference']}" if "reference" in reasons else NO_REFERENCE
    ratios = compare(attack, "retention", split, measured, unit="ratio", kind="attack", no_reference=no_reference)
    return [*findings, *(_with_unit(finding, budget_unit) for finding in ratios)]


def _with_unit(finding: Finding, unit: str) -> Finding:
    return finding.model_copy(update={"budget_unit": unit})
