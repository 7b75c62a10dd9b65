"""Relearning: train the model on what an attacker has and watch the forget set come back.

What returns without having been taught was never gone, only hidden; a retrained model, trained on the same data, shows how much of that is
ordinary learning. `data` says what the attacker has. `forget-part`: a part of the forget set; `knowledge` is measured on the rest of it, split `forget-rest`.
`retain`: the retain set, as in ordinary fine-tuning. `other`: data from a source of their own, related or not, or else the test samples of classes that are
not forgotten; with these two, `knowledge` is measured on the whole forget set, split `forget`.
Findings: `knowledge` with the number of optimiser steps as the budget, for the unlearned model and for each reference; and the original model's at budget 0.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator
from torch import nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import findings_of_curves, knowledge_of
from unlearned.data.samples import Samples
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.engine.training import relearnt
from unlearned.errors import DivergedError, Fault, InputError, raise_faults
from unlearned.evidence.classes import of_classes
from unlearned.evidence.comparison import Measured, absent
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding, SubjectName
from unlearned.tasks._task import DataSource

_GRID = (0, 1, 2, 5)


class _Material(NamedTuple):
    """What the attacker has, what is measured, and the name of that."""

    known: Samples
    measured: Samples
    split: str


@attacks.register("relearn")
class Relearn(Attack):
    """Fine-tune on what the attacker has; measure knowledge of what they lack."""

    name: ClassVar[str] = "relearn"
    data: Literal["forget-part", "retain", "other"] = Field(
        "forget-part", description="What the attacker has: a part of the forget set, the retain set, or other data."
    )
    source: DataSource | None = Field(None, description="Where other data come from; None: the test samples of classes that are not forgotten.")
    share: float = Field(0.5, gt=0, lt=1, description="Part of the forget set that the attacker has, with data `forget-part`.")
    steps: int = Field(50, ge=1, le=1_000_000, description="Optimiser steps that the attacker takes.")
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "sgd")
    lr: float = Optimisation.field("lr", 0.01)
    batch_size: int = Optimisation.field("batch_size", 32)

    @field_validator("source", mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        return {"source": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _source_of_other_data(self) -> Relearn:
        if self.source is not None and self.data != "other":
            raise ValueError("`source` is where `data: other` comes from, and goes with it alone")
        return self

    def faults(self, problem: Problem) -> list[Fault]:
        if self.source is None:
            return []
        try:
            samples = problem.task.read(self.source, problem.original, "source", problem.retain)
        except InputError as error:
            return list(error.faults)
        return problem.task.faults(problem.original, samples, "source") if len(samples) else [Fault("source", "it holds no samples.", "Give some.")]

    def measure(self, subject: Subject) -> list[Finding]:
        material = self._material(subject)
        if isinstance(material, str):
            split = "forget-rest" if self.data == "forget-part" else "forget"
            return [absent(self.name, "knowledge", split, material, unit="share", kind="attack")]
        try:
            return self._findings(subject, material)
        except DivergedError as error:
            reason = f"the attack itself diverged ({str(error).partition(':')[0]}); give it a lower lr"
            return [absent(self.name, "knowledge", material.split, reason, unit="share", kind="attack")]

    def _findings(self, subject: Subject, material: _Material) -> list[Finding]:
        curves: dict[SubjectName, list[list[Measured]]] = {"original": [], "unlearned": [], "reference": []}
        for who, model in subject.models():
            if who == "original":
                curves[who].append([knowledge_of(subject, model, material.measured)])
            else:
                curves[who].append(self._curve(subject, model, material))
        return findings_of_curves(self.name, "knowledge", material.split, curves, self.budgets(), "steps")

    def budgets(self) -> list[int]:
        """Steps after which knowledge is measured: 0, 1, 2, 5, 10, 20, 50, ..., and the last."""
        grid = {base * 10**power for base in _GRID for power in range(len(str(self.steps)))}
        return sorted({step for step in grid if step < self.steps} | {self.steps})

    def _material(self, subject: Subject) -> _Material | str:
        """What the attacker works with; or why there is nothing."""
        problem = subject.problem
        if self.data == "forget-part":
            known, rest = self._split(subject)
            return _Material(known, rest, "forget-rest") if len(known) and len(rest) else "the forget set has a single sample, which cannot be divided"
        if self.data == "retain":
            return _Material(problem.retain, problem.forget, "forget")
        if self.source is not None:
            raise_faults([fault._replace(field=f"attack.{fault.field}") for fault in self.faults(problem)])
            return _Material(problem.task.read(self.source, problem.original, "attack.source", problem.retain), problem.forget, "forget")
        forgotten = of_classes(problem.test, problem.forget)
        others = problem.test if forgotten is None else problem.test.subset((~forgotten).nonzero()[0])
        if not len(others):
            return "every class of the test set occurs in the forget set, and no source of other data is given"
        return _Material(others, problem.forget, "forget")

    def _split(self, subject: Subject) -> tuple[Samples, Samples]:
        forget = subject.problem.forget
        shuffled = forget.shuffled(derive_seed(subject.engine.seed, self.name))
        count = min(max(1, round(self.share * len(forget))), len(forget) - 1)
        return shuffled.subset(range(count)), shuffled.subset(range(count, len(forget)))

    def _curve(self, subject: Subject, model: nn.Module, material: _Material) -> list[Measured]:
        budgets, points = set(self.budgets()), []

        def watch(model: nn.Module, step: int) -> None:
            if step in budgets:
                points.append(knowledge_of(subject, model, material.measured))

        how = Optimisation.model_validate({"optimizer": self.optimizer, "lr": self.lr, "batch_size": self.batch_size, "weight_decay": 0.0})
        relearnt(subject.engine, model, material.known, how, self.steps, title=self.name, watch=watch)
        return points
