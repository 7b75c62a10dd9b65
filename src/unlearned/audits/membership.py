"""Membership inference by confidence: can one tell that the forget set was ever trained on?

The attack scores a sample by the negative of its loss and separates the forget set from the test set. The same attack on the references, which never saw
the forget set, gives the number to match: a lower one is as telling as a higher one. Findings on split `forget`: `auc` (Mann-Whitney, ties
half), `tpr_at_1pct_fpr`, `tpr_at_0.1pct_fpr` (Carlini et al. 2022, arXiv 2112.03570). On split `forget-same-class` the test samples are those of the
classes in the forget set: when whole classes are forgotten, the others are no fair comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.audits._membership import auc, tpr_at_fpr
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.classes import of_classes
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import Array, bootstrap
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, SubjectName

_RATES = {"tpr_at_1pct_fpr": 0.01, "tpr_at_0.1pct_fpr": 0.001}


@audits.register("membership")
class Membership(Audit):
    """Confidence attack on the forget set."""

    name: ClassVar[str] = "membership"

    def measure(self, subject: Subject) -> list[Finding]:
        seed = derive_seed(subject.engine.seed, self.name)
        losses = {split: subject.values(subject.engine.task.losses, split) for split in ("forget", "test")}
        everyone = [(who, i) for who in losses["test"] for i in range(len(losses["test"][who]))]
        scores = {(split, who, i): -losses[split][who][i].numpy() for split in losses for who, i in everyone}

        def findings(metric: str, split: str, measured: Callable[[SubjectName, int], Measured], unit: str = "share") -> list[Finding]:
            numbers: dict[SubjectName, list[Measured]] = {who: [] for who in losses["test"]}
            for who, i in everyone:
                numbers[who].append(measured(who, i))
            return compare(self.name, metric, split, numbers, unit=unit)

        def separation(among: NDArray[np.bool_]) -> Callable[[SubjectName, int], Measured]:
            def measured(who: SubjectName, i: int) -> Measured:
                members, others = scores["forget", who, i], scores["test", who, i][among]
                return Measured(auc(members, others), bootstrap(auc, members, others, seed=seed), len(members) + len(others))

            return measured

        everything = np.ones(len(subject.problem.test), dtype=bool)
        result = findings("auc", "forget", separation(everything), unit="")
        for metric, rate in _RATES.items():
            if len(everything) * rate < 1:
                reason = f"a rate of {rate:.1%} needs at least {round(1 / rate)} test samples, there are {len(everything)}"
                result.append(absent(self.name, metric, "forget", reason, unit="share"))
                continue

            def rated(who: SubjectName, i: int, rate: float = rate) -> Measured:
                def at(a: Array, b: Array) -> float:
                    return tpr_at_fpr(a, b, rate)

                members, others = scores["forget", who, i], scores["test", who, i]
                return Measured(at(members, others), bootstrap(at, members, others, seed=seed), len(members) + len(others))

            result += findings(metric, "forget", rated)
        same = of_classes(subject.problem.test, subject.problem.forget)
        if same is not None and same.any() and not same.all():
            result += findings("auc", "forget-same-class", separation(same), unit="")
        return result
