"""Membership inference by a support-vector machine on confidence, on the forget set and on forgotten classes.

Paper: Fan et al. 2024 (SalUn), arXiv 2310.12508. The form for classes: code of Kodge et al. 2023, arXiv 2312.00761.
Formula: an RBF-SVC on the true class's probability exp(−loss) learns to tell members from non-members; the value is the share of other samples that it calls
non-members. SalUn: members are retain samples, non-members the test set; what it says of the forget set. Classes, if no retain sample is of a forgotten class:
members are retain samples, non-members the forget set; what it says of the test samples of the forgotten classes.
Defaults of the authors: C = 3, gamma `auto`.
Deviations: as many members as non-members, chosen by the seed (the authors: the first ones; for classes: all of both, so that the larger set decides).
Findings: `nonmember_share` on split `forget`, `class_nonmember_share` on split `test-same-class`. No value is good in itself: the references, which never
saw the forget set, give the number to match. One threshold for all samples overlooks much of what u-lira and rmia find.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.audits._membership import svc_nonmember_share
from unlearned.evidence.classes import of_classes
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import Array, wilson
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, SubjectName


def nonmember_shares(subject: Subject) -> dict[SubjectName, list[float]]:
    """SalUn's number of every model: the share of the forget set that is called non-members."""

    def make() -> dict[SubjectName, list[float]]:
        seed = subject.engine.seed
        return {who: [svc_nonmember_share(p["retain"], p["test"], p["forget"], seed) for p in models] for who, models in _confidences(subject).items()}

    return subject.once("nonmember_shares", make)


@audits.register("svc-mia")
class SvcMia(Audit):
    """Support-vector machine on confidence."""

    name: ClassVar[str] = "svc-mia"

    def measure(self, subject: Subject) -> list[Finding]:
        n = len(subject.problem.forget)
        measured = {who: [_measured(share, n) for share in shares] for who, shares in nonmember_shares(subject).items()}
        return compare(self.name, "nonmember_share", "forget", measured, unit="share") + self._classes(subject)

    def _classes(self, subject: Subject) -> list[Finding]:
        metric, split = "class_nonmember_share", "test-same-class"
        same = _tested(subject)
        if isinstance(same, str):
            return [absent(self.name, metric, split, same, unit="share")]
        n = int(same.sum())
        seed = subject.engine.seed
        measured = {
            who: [_measured(svc_nonmember_share(p["retain"], p["forget"], p["test"][same], seed), n) for p in models]
            for who, models in _confidences(subject).items()
        }
        return compare(self.name, metric, split, measured, unit="share")


def _tested(subject: Subject) -> NDArray[np.bool_] | str:
    """Which test samples are of the forgotten classes; or why the form for classes does not apply."""
    problem = subject.problem
    retained, tested = of_classes(problem.retain, problem.forget), of_classes(problem.test, problem.forget)
    if retained is None or tested is None:
        return "no class is forgotten: the samples have no labels"
    if retained.any():
        return "no class is forgotten as a whole: the retain set has samples of the same classes"
    return tested if tested.any() else "no class that is forgotten has test samples"


def _confidences(subject: Subject) -> dict[SubjectName, list[dict[str, Array]]]:
    """exp(−loss) of every model, by set."""
    losses = {split: subject.values(subject.engine.task.losses, split) for split in ("retain", "test", "forget")}
    return {
        who: [{split: np.exp(-several[who][i].numpy()) for split, several in losses.items()} for i in range(len(models))]
        for who, models in losses["test"].items()
    }


def _measured(share: float, n: int) -> Measured:
    return Measured(share, wilson(share * n, n), n)
