"""Relearn time: how many steps of training on the forget set until the model knows it as well as the original did?

What was only hidden comes back sooner than a model learns it that never knew it. What takes longer than that was made hard to learn, and tells, too.
Paper: anamnesis index of Chundawat et al. 2023, arXiv 2201.05629.
Formula: `relearn_time` r(M) = the first number of steps after which M's score on D_f is at least (1 − α) times the original's; 0 if it is from the start.
`anamnesis_index` AIN = r(unlearned) / mean over references of r(reference): 1 is perfect, below 1 something was left.
Defaults of the authors: not known to us; α of 5 to 10 % is commonly cited. Optimiser and cap are ours.
Deviations: the index is as it is commonly cited. Training is on the forget set alone, all models meet the same batches, and the score is looked at after every
`every` steps. A model that does not get there within `cap` steps has no relearn time, and then there is no ratio, but its bound in words; nor is there one if
the references are there from the start.
Findings: on split `forget`, for all models; the original's time is 0. The models are copied, none is changed.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.engine.settings import Optimisation
from unlearned.engine.training import relearnt
from unlearned.errors import DivergedError
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.subject import Subject
from unlearned.records import NO_REFERENCE, Finding, SubjectName

_UNITS = {"relearn_time": "steps", "anamnesis_index": "ratio"}

Times = dict[SubjectName, list[int | None]]
"""Steps that each model needed; None: more than the cap."""


@audits.register("relearn-time")
class RelearnTime(Audit):
    """Steps of training on the forget set until the original's score is reached, beside those of references."""

    name: ClassVar[str] = "relearn-time"
    by_default: ClassVar[bool] = False
    score: Literal["utility", "knowledge", "likelihood"] = Field(
        "utility", description="What has to be reached, as a mean over the forget set: the task's utility, such as accuracy; its knowledge; or exp(−loss)."
    )
    alpha: float = Field(0.05, ge=0, lt=1, description="α: the share of the original's score that may be missing.")
    cap: int = Field(200, ge=1, le=1_000_000, description="Steps after which a model is given up.")
    every: int = Field(1, ge=1, description="Steps between two looks at the score.")
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "sgd")
    lr: float = Optimisation.field("lr", 0.01)
    batch_size: int = Optimisation.field("batch_size", 32)

    def measure(self, subject: Subject) -> list[Finding]:
        target = (1 - self.alpha) * self._score(subject, subject.problem.original.model)
        if target == 0:
            return self._absent("the original shows nothing of the forget set that could be reached")
        times: Times = {"original": [], "unlearned": [], "reference": []}
        try:
            for who, model in subject.models():
                times[who].append(self._steps(subject, model, target))
        except DivergedError as error:
            return self._absent(f"relearning itself diverged ({str(error).partition(':')[0]}); give it a lower lr")
        return self._times(times, len(subject.problem.forget)) + self._index(times, len(subject.problem.forget))

    def _absent(self, reason: str) -> list[Finding]:
        return [absent(self.name, metric, "forget", reason, unit=unit) for metric, unit in _UNITS.items()]

    def _score(self, subject: Subject, model: nn.Module) -> float:
        task = subject.engine.task
        measure = {"utility": task.utility, "knowledge": task.knowledge, "likelihood": task.losses}[self.score]
        values = subject.engine.evaluate(model, subject.problem.forget, measure)
        return float((torch.exp(-values) if self.score == "likelihood" else values).mean())

    def _steps(self, subject: Subject, model: nn.Module, target: float) -> int | None:
        reached: list[int] = []

        def watch(model: nn.Module, step: int) -> bool:
            looks = step % self.every == 0 or step == self.cap
            if looks and self._score(subject, model) >= target:
                reached.append(step)
            return bool(reached)

        how = Optimisation.model_validate({"optimizer": self.optimizer, "lr": self.lr, "batch_size": self.batch_size, "weight_decay": 0.0})
        relearnt(subject.engine, model, subject.problem.forget, how, self.cap, title=self.name, watch=watch)
        return reached[0] if reached else None

    def _times(self, times: Times, n: int) -> list[Finding]:
        missing = self._missing(times["reference"])
        known = {who: [Measured(float(t), None, n) for t in several if t is not None] for who, several in times.items()}
        if missing:
            known["reference"] = []
        findings = compare(self.name, "relearn_time", "forget", known, unit="steps", no_reference=missing or NO_REFERENCE)
        if None in times["unlearned"]:
            findings.append(absent(self.name, "relearn_time", "forget", f"not reached within the cap of {self.cap} steps", unit="steps"))
        if missing:
            findings.append(absent(self.name, "relearn_time", "forget", missing, unit="steps", subject="reference"))
        return findings

    def _index(self, times: Times, n: int) -> list[Finding]:
        references = [t for t in times["reference"] if t is not None]
        missing = self._missing(times["reference"]) or (None if times["reference"] else NO_REFERENCE)
        if missing is None and sum(references) == 0:
            missing = "the references reach it without training, so that there is no ratio to their time"
        if missing:
            return [absent(self.name, "anamnesis_index", "forget", missing, unit="ratio")]
        mean = sum(references) / len(references)
        ratios = {who: [Measured(t / mean, None, n) for t in several if t is not None] for who, several in times.items()}
        findings = compare(self.name, "anamnesis_index", "forget", ratios, unit="ratio")
        if None in times["unlearned"]:
            reason = f"not reached within the cap of {self.cap} steps: the index is above {self.cap / mean:.3g}"
            findings.append(absent(self.name, "anamnesis_index", "forget", reason, unit="ratio"))
        return findings

    def _missing(self, references: list[int | None]) -> str | None:
        """What is said where references did not get there."""
        failed = sum(t is None for t in references)
        return f"{failed} of {len(references)} references did not reach it within the cap of {self.cap} steps" if failed else None
