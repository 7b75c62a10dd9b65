"""From numbers of the original, the unlearned and the reference models to findings with intervals and gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from unlearned.evidence.statistics import Interval, t_interval
from unlearned.records import NO_REFERENCE, Direction, Finding, SubjectName


class Measured(NamedTuple):
    """A number of one model."""

    value: float
    interval: Interval | None
    n: int
    """Samples that it rests on."""


def compare(
    audit: str,
    metric: str,
    split: str,
    measured: Mapping[SubjectName, Sequence[Measured]],
    *,
    unit: str,
    direction: Direction = "reference",
    kind: Literal["audit", "attack"] = "audit",
    budget: float | None = None,
    budget_unit: str | None = None,
    no_reference: str = NO_REFERENCE,
) -> list[Finding]:
    """One finding per subject; the reference's is the mean over the bank with its interval over seeds.

    Args:
        audit: name of the audit or attack.
        metric: what was measured.
        split: on which data.
        measured: one number for original and unlearned, one per reference model; subjects may be left out.
        unit: of the value.
        direction: what is good.
        kind: audit or attack.
        budget: of an attack.
        budget_unit: of an attack.
        no_reference: why, if there is no number of a reference.
    """
    shared: dict[str, Any] = {
        "audit": audit,
        "kind": kind,
        "metric": metric,
        "split": split,
        "unit": unit,
        "direction": direction,
        "budget": budget,
        "budget_unit": budget_unit,
    }
    references = measured.get("reference", ())
    reference = float(np.mean([m.value for m in references])) if references else None
    findings = []
    for subject in ("original", "unlearned"):
        for m in measured.get(subject, ()):
            gap = None if reference is None else m.value - reference
            findings.append(
                Finding(subject=subject, value=m.value, n=m.n, gap=gap, reason=no_reference if gap is None else None, **_ends(m.interval), **shared)
            )
    if reference is not None:
        single = references[0].interval if len(references) == 1 else None
        interval = t_interval([m.value for m in references], "reference models") or single
        findings.append(Finding(subject="reference", value=reference, n=len(references), **_ends(interval), **shared))
    return findings


def against_null(
    audit: str, metric: str, split: str, measured: Mapping[SubjectName, Measured], null: Measured | str, *, unit: str, models: int
) -> list[Finding]:
    """Findings of what was held against references; that of the reference is references against other references.

    Args:
        audit: name of the audit.
        metric: what was measured.
        split: on which data.
        measured: the number of original or unlearned, of one model or of several together.
        null: references against other references; or why that could not be measured.
        unit: of the value.
        models: references that the null rests on.
    """
    numbers: dict[SubjectName, list[Measured]] = {who: [number] for who, number in measured.items()}
    reason = null if isinstance(null, str) else NO_REFERENCE
    if not isinstance(null, str):
        numbers["reference"] = [null]
    findings = compare(audit, metric, split, numbers, unit=unit, no_reference=reason)
    return [f.model_copy(update={"n": models}) if f.subject == "reference" else f for f in findings]


def absent(
    audit: str, metric: str, split: str, reason: str, *, unit: str, subject: SubjectName = "unlearned", kind: Literal["audit", "attack"] = "audit"
) -> Finding:
    """A finding that could not be made, with the reason."""
    return Finding(audit=audit, kind=kind, metric=metric, split=split, subject=subject, value=None, n=0, unit=unit, reason=reason)


def _ends(interval: Interval | None) -> dict[str, Any]:
    return {} if interval is None else {"low": interval.low, "high": interval.high, "interval": interval.how}
