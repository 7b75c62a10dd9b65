"""Skipped points: what the model still shows of the forget samples that were left out of the unlearning, measured by themselves.

Findings on split `forget-skipped`, and for comparison on `forget-unlearned`, the rest of the forget set: `auc` of the confidence attack against the test set
(as in `membership`), `knowledge`, the task's mean score of what the model shows. On the whole forget set the part that was unlearned can hide what the skipped
part leaks. The references never saw any of it: a gap to them on the skipped points means that pruning was not free. Without a gap the points are still not
deleted: skipping never satisfies a request for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.audits._membership import auc
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import bootstrap, t_interval
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, SubjectName


@audits.register("skipped-points")
class SkippedPoints(Audit):
    """Membership and knowledge of the dropped forget points by themselves."""

    name: ClassVar[str] = "skipped-points"
    by_default: ClassVar[bool] = False

    def measure(self, subject: Subject) -> list[Finding]:
        if not len(subject.skipped):
            reason = "no point of the forget set was skipped"
            return [absent(self.name, metric, "forget-skipped", reason, unit=unit) for metric, unit in (("auc", ""), ("knowledge", "share"))]
        out = set(subject.skipped)
        rest = [i for i in range(len(subject.problem.forget)) if i not in out]
        findings = self._of(subject, "forget-skipped", subject.skipped)
        return findings + (self._of(subject, "forget-unlearned", rest) if rest else [])

    def _of(self, subject: Subject, split: str, positions: Sequence[int]) -> list[Finding]:
        task = subject.engine.task
        seed = derive_seed(subject.engine.seed, self.name)
        losses = {part: subject.values(task.losses, part) for part in ("forget", "test")}
        shown = subject.values(task.knowledge, "forget")
        attacked: dict[SubjectName, list[Measured]] = {}
        known: dict[SubjectName, list[Measured]] = {}
        for who, models in shown.items():
            attacked[who], known[who] = [], []
            for i, values in enumerate(models):
                members, others = -losses["forget"][who][i].numpy()[list(positions)], -losses["test"][who][i].numpy()
                attacked[who].append(Measured(auc(members, others), bootstrap(auc, members, others, seed=seed), len(members) + len(others)))
                here = values.numpy()[list(positions)]
                known[who].append(Measured(float(here.mean()), t_interval(here, "samples"), len(here)))
        return compare(self.name, "auc", split, attacked, unit="") + compare(self.name, "knowledge", split, known, unit="share")
