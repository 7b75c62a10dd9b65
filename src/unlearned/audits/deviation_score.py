"""How far a language model is from having forgotten everything and kept everything, by what it says.

`rouge1`: ROUGE-1 recall of the greedy answers, on each set. `deviation_score`: DS = 100 · √(R_forget² + (1 − R_retain)²), R the mean recall on a set; 0 is
best, and retraining reaches what it can (Shen et al. 2025, LUNAR, arXiv 2502.07218). Interval of DS: bootstrap over the samples of both sets.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from unlearned.audits import audits
from unlearned.audits._answers import from_generations, mean_findings, text_task
from unlearned.audits._audit import Audit
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, compare
from unlearned.evidence.statistics import Array, bootstrap
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, SubjectName


def deviation_score(forget_recall: float, retain_recall: float) -> float:
    """100 · √(R_forget² + (1 − R_retain)²), in [0, 141.4]; both recalls in [0, 1]."""
    return float(100 * np.hypot(forget_recall, 1 - retain_recall))


@audits.register("deviation-score")
class DeviationScore(Audit):
    """Recall of answers, and the deviation score."""

    name: ClassVar[str] = "deviation-score"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})

    def measure(self, subject: Subject) -> list[Finding]:
        recall = text_task(subject).recall
        values = {split: from_generations(subject, samples, recall) for split, samples in subject.problem.sets.items()}
        findings = [finding for split, each in values.items() for finding in mean_findings(self.name, "rouge1", split, each)]
        seed = derive_seed(subject.engine.seed, self.name)

        def score(forget: Array, retain: Array) -> float:
            return deviation_score(float(forget.mean()), float(retain.mean()))

        scores: dict[SubjectName, list[Measured]] = {}
        for who, several in values["forget"].items():
            pairs = list(zip(several, values["retain"][who], strict=True))
            scores[who] = [Measured(score(f, r), bootstrap(score, f, r, seed=seed), len(f) + len(r)) for f, r in pairs]
        return findings + compare(self.name, "deviation_score", "all", scores, unit="", direction="lower")
