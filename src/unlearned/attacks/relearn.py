"""Relearning: train the model on a part of the forget set and watch the rest of it come back.

What returns on samples that the attacker does not have was never gone, only hidden; a retrained model, trained on the same part, shows how much of that is
ordinary learning. Findings: `knowledge` on split `forget-rest` (the forget samples that the attacker lacks), with the number of optimiser steps as
the budget, for the unlearned model and for each reference; and the original model's at budget 0.
"""

from __future__ import annotations

import copy
import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.data.samples import Samples
from unlearned.engine.loop import Pass, Plan, fit
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.errors import DivergedError
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import t_interval
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, SubjectName
from unlearned.tasks._task import Batch

_GRID = (0, 1, 2, 5)


@attacks.register("relearn")
class Relearn(Attack):
    """Fine-tune on a part of the forget set; measure knowledge of the rest."""

    name: ClassVar[str] = "relearn"
    share: float = Field(0.5, gt=0, lt=1, description="Part of the forget set that the attacker has.")
    steps: int = Field(50, ge=1, le=1_000_000, description="Optimiser steps that the attacker takes.")
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "sgd")
    lr: float = Optimisation.field("lr", 0.01)
    batch_size: int = Optimisation.field("batch_size", 32)

    def measure(self, subject: Subject) -> list[Finding]:
        known, rest = self._split(subject)
        if not len(known) or not len(rest):
            return [absent(self.name, "knowledge", "forget-rest", "the forget set has a single sample, which cannot be divided", unit="share", kind="attack")]
        try:
            return self._findings(subject, known, rest)
        except DivergedError as error:
            reason = f"the attack itself diverged ({str(error).partition(':')[0]}); give it a lower lr"
            return [absent(self.name, "knowledge", "forget-rest", reason, unit="share", kind="attack")]

    def _findings(self, subject: Subject, known: Samples, rest: Samples) -> list[Finding]:
        curves: dict[SubjectName, list[list[Measured]]] = {"original": [], "unlearned": [], "reference": []}
        for who, model in subject.models():
            if who == "original":
                curves[who].append([self._knowledge(subject, model, rest)])
            else:
                curves[who].append(self._curve(subject, model, known, rest))
        findings = []
        for position, budget in enumerate(self.budgets()):
            measured = {who: [curve[position] for curve in several if position < len(curve)] for who, several in curves.items()}
            findings += compare(self.name, "knowledge", "forget-rest", measured, unit="share", kind="attack", budget=budget, budget_unit="steps")
        return findings

    def budgets(self) -> list[int]:
        """Steps after which knowledge is measured: 0, 1, 2, 5, 10, 20, 50, ..., and the last."""
        grid = {base * 10**power for base in _GRID for power in range(len(str(self.steps)))}
        return sorted({step for step in grid if step < self.steps} | {self.steps})

    def _split(self, subject: Subject) -> tuple[Samples, Samples]:
        forget = subject.problem.forget
        shuffled = forget.shuffled(derive_seed(subject.engine.seed, self.name))
        count = min(max(1, round(self.share * len(forget))), len(forget) - 1)
        return shuffled.subset(range(count)), shuffled.subset(range(count, len(forget)))

    def _knowledge(self, subject: Subject, model: nn.Module, rest: Samples) -> Measured:
        values = subject.engine.evaluate(model, rest, subject.engine.task.knowledge).numpy()
        return Measured(float(values.mean()), t_interval(values, "samples"), len(values))

    def _curve(self, subject: Subject, model: nn.Module, known: Samples, rest: Samples) -> list[Measured]:
        engine = subject.engine
        budgets, points = set(self.budgets()), []

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return engine.task.losses(model, forget).mean()

        def watch(model: nn.Module, step: int) -> None:
            if step in budgets:
                points.append(self._knowledge(subject, model, rest))

        how = Optimisation.model_validate({"optimizer": self.optimizer, "lr": self.lr, "batch_size": self.batch_size, "weight_decay": 0.0, "epochs": 1})
        steps_per_pass = math.ceil(len(known) / self.batch_size)
        plan = Plan([Pass("forget", loss)] * math.ceil(self.steps / max(1, steps_per_pass - 1)), max_steps=self.steps)
        # One title for all: the models meet the same batches and the same dropout, so that they differ in what they knew alone.
        fit(engine, copy.deepcopy(model), plan, {"forget": known}, how, title=self.name, seed=engine.seed, watch=watch)
        return points
