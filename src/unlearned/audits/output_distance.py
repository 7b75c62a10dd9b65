"""How far the models' predicted distributions lie from those of the references, sample by sample.

For each sample x and reference r: total variation ½ Σ_y |p(y|x) − p_r(y|x)|, and Jensen-Shannon divergence ½ KL(p ‖ m) + ½ KL(p_r ‖ m), m = (p +
p_r)/2, in bits, so that both lie in [0, 1]; averaged over references and samples. The reference's own row compares references with each other:
retraining with another seed is that far away. Needs references.
"""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.distances import jensen_shannon, total_variation
from unlearned.evidence.statistics import t_interval
from unlearned.evidence.subject import Subject
from unlearned.records import NO_REFERENCE, Finding, SubjectName


@audits.register("output-distance")
class OutputDistance(Audit):
    """Total variation and Jensen-Shannon divergence to the references."""

    name: ClassVar[str] = "output-distance"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})

    def measure(self, subject: Subject) -> list[Finding]:
        metrics = {"total_variation": total_variation, "jensen_shannon": jensen_shannon}
        if not subject.references:
            return [absent(self.name, metric, split, NO_REFERENCE, unit="share") for split in subject.problem.sets for metric in metrics]
        findings = []
        for split in subject.problem.sets:
            logits = subject.values(subject.engine.task.outputs, split)
            p = {who: [torch.softmax(each, dim=-1) for each in several] for who, several in logits.items()}
            for metric, distance in metrics.items():
                measured: dict[SubjectName, list[Measured]] = {}
                for who in ("original", "unlearned"):
                    per_sample = torch.stack([distance(p[who][0], q) for q in p["reference"]]).mean(dim=0)
                    measured[who] = [Measured(float(per_sample.mean()), t_interval(per_sample.numpy(), "samples"), len(per_sample))]
                pairs = [distance(a, b) for a, b in itertools.combinations(p["reference"], 2)]
                measured["reference"] = [Measured(float(pair.mean()), None, len(pair)) for pair in pairs]
                findings += _with_reason(compare(self.name, metric, split, measured, unit="share", direction="lower"), bool(pairs))
        return findings


def _with_reason(findings: list[Finding], several: bool) -> list[Finding]:
    """The interval over pairs of references would pretend that pairs are independent; and with one reference there is no pair."""
    if several:
        return [f.model_copy(update={"low": None, "high": None, "interval": None}) if f.subject == "reference" else f for f in findings]
    return [f.model_copy(update={"reason": "one reference model has no other to be compared with"}) for f in findings]
