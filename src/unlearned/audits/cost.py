"""What unlearning cost, beside what retraining cost.

Findings: `wall_seconds`, `cpu_seconds`, `peak_memory_bytes`, `samples_seen` of the unlearned model and of the references (mean over the bank), and
each of them as a ratio to retraining (`wall_seconds_ratio`, ...). References that run at the same time slow each other down: their processor time is
the fairer base.
"""

from __future__ import annotations

from typing import ClassVar

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.subject import Subject
from unlearned.records import Cost, Finding, SubjectName

_UNITS = {"wall_seconds": "seconds", "cpu_seconds": "seconds", "peak_memory_bytes": "bytes", "samples_seen": "samples"}


@audits.register("cost")
class CostAudit(Audit):
    """Time, memory and samples, absolute and as ratios to retraining."""

    name: ClassVar[str] = "cost"

    def measure(self, subject: Subject) -> list[Finding]:
        references = [reference.cost for reference in subject.references if reference.cost is not None]
        findings: list[Finding] = []
        for metric, unit in _UNITS.items():
            measured: dict[SubjectName, list[Measured]] = {"reference": [_measured(cost, metric) for cost in references]}
            if subject.cost is None:
                findings.append(absent(self.name, metric, "all", "the model was made elsewhere", unit=unit))
            else:
                measured["unlearned"] = [_measured(subject.cost, metric)]
            findings += compare(self.name, metric, "all", measured, unit=unit, direction="lower")
            findings += self._ratios(metric, measured)
        return findings

    def _ratios(self, metric: str, measured: dict[SubjectName, list[Measured]]) -> list[Finding]:
        name = f"{metric.removesuffix('_bytes')}_ratio"
        base = sum(m.value for m in measured["reference"]) / max(1, len(measured["reference"]))
        if "unlearned" not in measured:
            return [absent(self.name, name, "all", "the model was made elsewhere", unit="ratio")]
        if base == 0:
            return [absent(self.name, name, "all", "no reference whose cost is known", unit="ratio")]
        ratios = {who: [Measured(m.value / base, None, m.n) for m in several] for who, several in measured.items()}
        return compare(self.name, name, "all", ratios, unit="ratio", direction="lower")


def _measured(cost: Cost, metric: str) -> Measured:
    return Measured(float(getattr(cost, metric)), None, 1)
