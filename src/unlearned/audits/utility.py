"""What the models can do on forget, retain and test data, and how close the unlearned one comes to retraining.

Findings: the task's utility (`accuracy` for classifiers) by split, with Wilson intervals for the single models and t intervals over the references;
`average_gap`, mean over {1 − acc(D_f), acc(D_r), acc(test), `nonmember_share` of svc-mia} of |unlearned − reference| (Fan et al. 2024, SalUn, arXiv
2310.12508); `tug_of_war`, Π over forget, retain, test of (1 − |acc_u − acc_ref|), 1 is best (Zhao et al. 2024, arXiv 2406.01257). The row of the
reference compares each reference with the mean of the others: what retraining itself reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.audits.svc_mia import nonmember_shares
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import t_interval, wilson
from unlearned.evidence.subject import Subject
from unlearned.records import NO_REFERENCE, Direction, Finding, SubjectName

SPLITS = ("forget", "retain", "test")
_ONE_REFERENCE = "one reference model has no other to be compared with"


def average_gap(values: Sequence[float], reference: Sequence[float]) -> float:
    """Mean of |value − reference| over metrics; 0 is best."""
    return float(np.mean(np.abs(np.subtract(values, reference))))


def tug_of_war(accuracies: Sequence[float], reference: Sequence[float]) -> float:
    """Π (1 − |accuracy − reference|) over splits, in [0, 1]; 1 is best."""
    return float(np.prod(1 - np.abs(np.subtract(accuracies, reference))))


@audits.register("utility")
class Utility(Audit):
    """Utility by split, average gap, tug-of-war."""

    name: ClassVar[str] = "utility"

    def measure(self, subject: Subject) -> list[Finding]:
        task = subject.engine.task
        findings: list[Finding] = []
        scores = {split: subject.values(task.utility, split) for split in subject.problem.sets}
        for split, values in scores.items():
            measured = {who: [_measured(v) for v in each] for who, each in values.items()}
            findings += compare(self.name, task.utility_metric, split, measured, unit="share")
        means = {who: [[float(scores[split][who][i].mean()) for split in SPLITS] for i in range(len(scores["test"][who]))] for who in scores["test"]}
        return findings + self._summaries(subject, means)

    def _summaries(self, subject: Subject, means: dict[SubjectName, list[list[float]]]) -> list[Finding]:
        metrics = ("average_gap", "tug_of_war")
        if not means["reference"]:
            return [absent(self.name, metric, "all", NO_REFERENCE, unit="share") for metric in metrics]
        shares = nonmember_shares(subject)
        full = {who: [[*row, share] for row, share in zip(rows, shares[who], strict=True)] for who, rows in means.items()}
        findings: list[Finding] = []
        n = sum(len(subject.problem.sets[split]) for split in SPLITS)
        for metric, function, table in (("average_gap", average_gap, full), ("tug_of_war", tug_of_war, means)):
            references = np.array(table["reference"])
            measured: dict[SubjectName, list[Measured]] = {}
            for who in ("original", "unlearned"):
                measured[who] = [Measured(function(table[who][0], references.mean(axis=0)), None, n)]
            if len(references) > 1:
                others = [function(row, np.delete(references, i, axis=0).mean(axis=0)) for i, row in enumerate(references)]
                measured["reference"] = [Measured(value, None, n) for value in others]
            direction: Direction = "higher" if metric == "tug_of_war" else "lower"
            compared = compare(self.name, metric, "all", measured, unit="share", direction=direction)
            # Each reference is compared with the mean of the others, so that these values depend on each other: no interval over them.
            compared = [f.model_copy(update={"low": None, "high": None, "interval": None}) for f in compared]
            findings += compared if len(references) > 1 else [f.model_copy(update={"reason": _ONE_REFERENCE}) for f in compared]
        return findings


def _measured(values: Tensor) -> Measured:
    binary = bool(((values == 0) | (values == 1)).all())
    interval = wilson(float(values.sum()), len(values)) if binary else t_interval(values.numpy(), "samples")
    return Measured(float(values.mean()), interval, len(values))
