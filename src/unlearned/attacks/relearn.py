"""Relearning: train the model on what an attacker has and watch the forget set come back.

What returns without having been taught was never gone, only hidden; a retrained model, trained on the same data, shows how much of that is
ordinary learning. `data` says what the attacker has. `forget-part`: a part of the forget set; `knowledge` is measured on the rest of it, split `forget-rest`.
With the others it is measured on the whole forget set, split `forget`. `retain`: the retain set, as in ordinary fine-tuning. `other`: data from a source of
their own, related or not, or else the test samples of classes that are not forgotten. For language models also `related`: the retained samples whose wording
is nearest to the forget set (largest cosine to its mean TF-IDF vector of words); `benign`: plain sentences about everyday things; `random`: words of the
retained samples in random order, which teach no fact. Several kinds are tried one after the other, each from the unlearned model. `contaminated`: the retain
set, or the other data if a source is named, a share of which was replaced by samples from the attacker's part of the forget set; measured on the rest of it.
All weights are trained, or adapters (`lora`). With `prior_weight`, the loss on retained samples is added to each step, the prior preservation of DreamBooth
(Ruiz et al. 2023, arXiv 2208.12242); `prompt` puts one prompt in the place of all prompts of the training data, as DreamBooth does.
So the fine-tuning of Li et al. 2025 (ResAlign, arXiv 2507.16302) is: benign (`retain`), benign and new (`other`), contaminated by 0 to 100 %; full or lora,
with or without prior preservation; SGD, Adam or AdamW, at several rates. Their evaluation: 200 steps of AdamW, lr 1e-5, weight decay 1e-2, clipped at 1.
Defaults: AdamW for language models, at 1e-4 · √(10⁸ / parameters) between 1e-5 and 3e-3: 3e-5 to 1e-4 for models of 10⁹ to 10⁸ parameters. SGD at 0.01 for
other tasks.
Findings: `knowledge` with the number of optimiser steps as the budget, for the unlearned model and for each reference; and the original model's at budget 0.
`retention`, the share of the forgetting that is left where the attacker does best.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import curves_of, findings_of_knowledge, knowledge_of
from unlearned.data.samples import Samples, union
from unlearned.engine.adapters import Lora
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.engine.training import Fashion, relearnt
from unlearned.errors import DivergedError, Fault, InputError, raise_faults
from unlearned.evidence.classes import of_classes
from unlearned.evidence.comparison import absent
from unlearned.evidence.pictures import show
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding
from unlearned.settings import Pattern
from unlearned.tasks._stray_texts import benign, nearest, without_order
from unlearned.tasks._task import DataSource
from unlearned.tasks.image_generation import ImageGeneration, attention_of
from unlearned.tasks.text_generation import TextGeneration

Kind = Literal["forget-part", "retain", "other", "contaminated", "related", "benign", "random"]
OF_TEXTS = ("related", "benign", "random")
MADE_UP = 200
"""Samples of data that are made up."""
_GRID = (0, 1, 2, 5)


def usual_lr(optimizer: str, parameters: int) -> float:
    """0.01 for SGD; for Adam 1e-4 · √(10⁸ / parameters), between 1e-5 and 3e-3.

    >>> usual_lr("adamw", 10**8), usual_lr("adamw", 50_000), usual_lr("adamw", 7 * 10**10)
    (0.0001, 0.003, 1e-05)
    """
    return 0.01 if optimizer == "sgd" else min(max(1e-4 * (1e8 / parameters) ** 0.5, 1e-5), 3e-3)


_NAMES = {
    "retain": "retained data",
    "other": "other data",
    "contaminated": "contaminated data",
    "related": "related data",
    "benign": "plain sentences",
    "random": "words without order",
}


class _Material(NamedTuple):
    """What the attacker has, what is measured, and the name of that."""

    known: Samples
    measured: Samples
    split: str


@attacks.register("relearn")
class Relearn(Attack):
    """Fine-tune on what the attacker has; measure knowledge of what they lack."""

    name: ClassVar[str] = "relearn"
    data: tuple[Kind, ...] = Field(
        ("forget-part",), min_length=1, description=f"What the attacker has: one or several of {', '.join(get_args(Kind))}. The last three are for texts."
    )
    source: DataSource | None = Field(None, description="Where other data come from; None: the test samples of classes that are not forgotten.")
    share: float = Field(0.5, gt=0, lt=1, description="Part of the forget set that the attacker has, with data `forget-part` or `contaminated`.")
    count: int | None = Field(None, ge=1, description="Most samples that the attacker has, with all other data; None: all, and 200 where they are made up.")
    contamination: float = Field(0.2, gt=0, le=1, description="Share of the data that comes from the forget set, with data `contaminated`.")
    steps: int = Field(50, ge=1, le=1_000_000, description="Optimiser steps that the attacker takes.")
    optimizer: Literal["sgd", "adam", "adamw"] | None = Field(None, description="Optimiser; None: adamw for language models, sgd for others.")
    lr: float | None = Field(None, gt=0, description="Learning rate; None: 0.01 for sgd, by the size of the model for the others.")
    batch_size: int = Optimisation.field("batch_size", 32)
    weight_decay: float = Optimisation.field("weight_decay", 0.0)
    max_grad_norm: float | None = Optimisation.field("max_grad_norm", None)
    lora: Lora | None = Field(None, description="Train low-rank adapters in the place of the weights.")
    parameters: Pattern = Field("", description="Regular expression for what is trained; empty: all, or with lora on a diffusion model its attention.")
    prior_weight: float = Field(0.0, ge=0, description="Weight of the loss on retained samples in each step.")
    prompt: str | None = Field(None, description="Diffusion models with prompts: one prompt for all training data.")
    pictures: int = Field(0, ge=0, le=64, description="Diffusion models: generated images of the forget set after the attack that the report shows.")

    @field_validator("source", "data", mode="before")
    @classmethod
    def _shorthand(cls, given: Any, info: ValidationInfo) -> Any:
        return given if not isinstance(given, str) else {"source": given} if info.field_name == "source" else (given,)

    @model_validator(mode="after")
    def _settings_fit(self) -> Relearn:
        if self.source is not None and not {"other", "contaminated"} & set(self.data):
            raise ValueError("`source` is where `data: other` comes from, and goes with it alone (or with `contaminated`)")
        if len(set(self.data)) < len(self.data):
            raise ValueError("a kind of `data` is named twice; name each once")
        return self

    def faults(self, problem: Problem) -> list[Fault]:
        if not isinstance(problem.task, TextGeneration) and any(kind in OF_TEXTS for kind in self.data):
            what = f"{', '.join(kind for kind in self.data if kind in OF_TEXTS)} are texts, and the task is {problem.task.name}."
            return [Fault("data", what, "Use forget-part, retain, other or contaminated.")]
        faults: list[Fault] = []
        if self.prompt is not None:
            try:
                self._prompted(problem, problem.retain.subset([0]))
            except InputError as error:
                faults += error.faults
        return faults + self._source_faults(problem)

    def _source_faults(self, problem: Problem) -> list[Fault]:
        if self.source is None:
            return []
        try:
            samples = problem.task.read(self.source, problem.original, "source", problem.retain)
        except InputError as error:
            return list(error.faults)
        return problem.task.faults(problem.original, samples, "source") if len(samples) else [Fault("source", "it holds no samples.", "Give some.")]

    def evaluations(self, problem: Problem) -> int:
        of_training = self.steps * min(self.batch_size, len(problem.retain)) * 3 / len(problem.forget)
        return round(len(self.data) * (len(self.budgets()) + of_training))

    def measure(self, subject: Subject) -> list[Finding]:
        raise_faults([fault._replace(field=f"attack.{fault.field}") for fault in self.faults(subject.problem)])
        return [finding for kind in self.data for finding in self._of_kind(subject, kind)]

    def _of_kind(self, subject: Subject, kind: Kind) -> list[Finding]:
        unit = "steps" if kind == "forget-part" else f"steps on {_NAMES[kind]}"
        material = self._material(subject, kind)
        if isinstance(material, str):
            split = "forget-rest" if kind in {"forget-part", "contaminated"} else "forget"
            return [absent(self.name, "knowledge", split, material, unit="share", kind="attack")]
        try:
            return self._findings(subject, material, unit)
        except DivergedError as error:
            reason = f"the attack itself diverged ({str(error).partition(':')[0]}); give it a lower lr"
            return [absent(self.name, "knowledge", material.split, reason, unit="share", kind="attack")]

    def _findings(self, subject: Subject, material: _Material, unit: str) -> list[Finding]:
        def curve(model: nn.Module) -> list[Array]:
            if model is subject.problem.original.model:
                return [knowledge_of(subject, model, material.measured)]
            return self._curve(subject, model, material, f"{self.steps} {unit}")

        return findings_of_knowledge(subject, self.name, material.split, curves_of(subject, curve), self.budgets(), unit)

    def budgets(self) -> list[int]:
        """Steps after which knowledge is measured: 0, 1, 2, 5, 10, 20, 50, ..., and the last."""
        grid = {base * 10**power for base in _GRID for power in range(len(str(self.steps)))}
        return sorted({step for step in grid if step < self.steps} | {self.steps})

    def _material(self, subject: Subject, kind: Kind) -> _Material | str:
        """What the attacker works with; or why there is nothing."""
        problem = subject.problem
        if kind in {"forget-part", "contaminated"}:
            part, rest = self._split(subject)
            if not len(part) or not len(rest):
                return "the forget set has a single sample, which cannot be divided"
            return _Material(part if kind == "forget-part" else self._contaminated(subject, part), rest, "forget-rest")
        known = self._known(subject, kind)
        if not len(known):
            return "every class of the test set occurs in the forget set, and no source of other data is given"
        if self.count is not None and kind != "related":
            known = known.shuffled(derive_seed(subject.engine.seed, self.name, kind)).subset(range(min(self.count, len(known))))
        return _Material(known, problem.forget, "forget")

    def _known(self, subject: Subject, kind: Kind) -> Samples:
        """Data other than the forget set."""
        problem, task = subject.problem, subject.engine.task
        seed = derive_seed(subject.engine.seed, self.name, kind)
        if kind == "retain":
            return problem.retain
        if kind == "related":
            return nearest(problem.retain, problem.forget, self.count or len(problem.forget))
        if kind == "random":
            return without_order(problem.retain.shuffled(seed), self.count or MADE_UP, seed)
        if kind == "benign":
            assert isinstance(task, TextGeneration)
            return benign(self.count or MADE_UP, task, problem.original, seed)
        if self.source is not None:
            return task.read(self.source, problem.original, "attack.source", problem.retain)
        forgotten = of_classes(problem.test, problem.forget)
        return problem.test if forgotten is None else problem.test.subset((~forgotten).nonzero()[0])

    def _benign(self, problem: Problem) -> Samples:
        if self.source is None:
            return problem.retain
        return problem.task.read(self.source, problem.original, "attack.source", problem.retain)

    def _contaminated(self, subject: Subject, part: Samples) -> Samples:
        """As many samples as there are benign ones, or fewer, so that no forgotten one is there twice; a share of them is from the forget set."""
        benign = self._benign(subject.problem).shuffled(derive_seed(subject.engine.seed, self.name, "benign"))
        count = max(1, min(len(benign), math.floor(len(part) / self.contamination)))
        bad = min(len(part), max(1, round(self.contamination * count)))
        return union(benign.subset(range(count - bad)), part.subset(range(bad))) if bad < count else part.subset(range(bad))

    def _prompted(self, problem: Problem, samples: Samples) -> Samples:
        """The samples under one prompt."""
        if self.prompt is None:
            return samples
        if not isinstance(problem.task, ImageGeneration) or "prompt" not in samples[0]:
            raise InputError(Fault("prompt", "the model is not asked with prompts.", "Leave it out; it is for diffusion models with a text encoder."))
        return problem.task.asked(samples, problem.task.prompts([self.prompt], problem.original, "prompt")[0])

    def _split(self, subject: Subject) -> tuple[Samples, Samples]:
        forget = subject.problem.forget
        shuffled = forget.shuffled(derive_seed(subject.engine.seed, self.name))
        count = min(max(1, round(self.share * len(forget))), len(forget) - 1)
        return shuffled.subset(range(count)), shuffled.subset(range(count, len(forget)))

    def _curve(self, subject: Subject, model: nn.Module, material: _Material, after: str) -> list[Array]:
        budgets, points = set(self.budgets()), []
        who = next(who for who, known in subject.models() if known is model)
        shown = material.measured.subset(range(min(self.pictures, len(material.measured))))
        if any((row.subject, row.after) == (who, f"{self.name}, {after}") for row in subject.pictures):  # of the references only the first
            shown = shown.subset([])

        def watch(model: nn.Module, step: int) -> None:
            if step in budgets:
                points.append(knowledge_of(subject, model, material.measured))
            if step == self.steps:
                show(subject, [(who, model)], shown, material.split, after=f"{self.name}, {after}")

        optimizer = self.optimizer or ("adamw" if isinstance(subject.engine.task, TextGeneration) else "sgd")
        lr = self.lr or usual_lr(optimizer, sum(parameter.numel() for parameter in model.parameters()))
        how = Optimisation(
            optimizer=optimizer,
            lr=lr,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            parameters=self.parameters or (attention_of(model) if self.lora is not None and isinstance(subject.engine.task, ImageGeneration) else ".*"),
        )
        fashion = Fashion(self.lora, subject.problem.retain if self.prior_weight else None, self.prior_weight)
        known = self._prompted(subject.problem, material.known)
        relearnt(subject.engine, model, known, how, self.steps, title=self.name, watch=watch, fashion=fashion)
        return points
