"""What attacks share that learn words for a diffusion model and leave its weights alone: references, the curve, and what can be wrong."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import curves_of, findings_of_knowledge, knowledge_of
from unlearned.attacks._recovery import GRID, findings_of_recovery
from unlearned.attacks._regrown_images import generated
from unlearned.data.samples import JoinedRows, Samples
from unlearned.engine.loop import LossFunction, Pass, Plan, fit
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.errors import DivergedError, Fault, InputError, raise_faults
from unlearned.evidence.comparison import absent
from unlearned.evidence.pictures import show
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding
from unlearned.tasks._words import Words, own_tokens, with_words
from unlearned.tasks.image_generation import Denoiser, ImageGeneration, denoiser_of


class Prompting(Attack):
    """Learn words with which a model that stays as it is draws what it has forgotten."""

    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-generation"})
    steps: int = Field(500, ge=1, le=1_000_000, description="Optimiser steps; knowledge is measured after 0, 10, 25, 50, 100, 200, 500.")
    sampling_steps: int = Field(50, ge=1, le=1000, description="Steps of DDIM for references.")
    pictures: int = Field(0, ge=0, le=64, description="Generated images of the forget set along the curve that the report shows.")

    @property
    @abstractmethod
    def wanted_pairs(self) -> int:
        """Pairs of references for each class."""

    @abstractmethod
    def words(self, subject: Subject, number: int, table: nn.Module) -> Words:
        """What the text encoder of this number reads with."""

    @abstractmethod
    def asked(self, problem: Problem, prompts: Tensor) -> Tensor:
        """Prompts (N, E, T) with learned words in them."""

    @abstractmethod
    def how(self) -> Optimisation:
        """The optimisation."""

    @abstractmethod
    def plan(self, subject: Subject, model: Denoiser) -> Plan:
        """What is trained on the references; `model` is the attacked one as it was."""

    def faults(self, problem: Problem) -> list[Fault]:
        try:
            model = denoiser_of(problem.original.model)
        except InputError as error:
            return list(error.faults)
        if model.conditioned_on == "prompt":
            return []
        return [Fault("name", "the model is not asked with prompts, so that there are no words to learn.", "Use a model with a text encoder.")]

    def evaluations(self, problem: Problem) -> int:
        return round(len(self.budgets()) + self.steps / len(problem.forget))

    def budgets(self) -> list[int]:
        """Steps after which knowledge is measured."""
        return [step for step in GRID if step < self.steps] + [self.steps]

    def measure(self, subject: Subject) -> list[Finding]:
        raise_faults([fault._replace(field=f"attack.{fault.field}") for fault in self.faults(subject.problem)])
        task, problem = subject.engine.task, subject.problem
        assert isinstance(task, ImageGeneration)
        guidance = task.scale_of(problem.original.model)
        references = generated(subject, self.wanted_pairs, self.name, steps=self.sampling_steps, guidance=guidance, prompt=None)
        learning, measured = (self._rewritten(problem, samples) for samples in (references, problem.forget))

        def curve(model: nn.Module) -> list[Array]:
            if model is problem.original.model:
                return [knowledge_of(subject, model, problem.forget)]
            return self._curve(subject, model, learning, measured)

        try:
            curves = curves_of(subject, curve)
        except DivergedError as error:
            reason = f"the attack itself diverged ({str(error).partition(':')[0]}); give it a lower lr"
            return [absent(self.name, "knowledge", "forget", reason, unit="share", kind="attack")]
        budgets = self.budgets()
        findings = findings_of_knowledge(subject, self.name, "forget", curves, budgets, "steps")
        return [*findings, *findings_of_recovery(subject, self.name, "forget", curves, budgets, "steps")]

    def _rewritten(self, problem: Problem, samples: Samples) -> Samples:
        prompts = torch.stack([samples.rows[i]["prompt"] for i in range(len(samples.rows))])
        columns = {"prompt": self.asked(problem, prompts), "usual": prompts}
        return Samples(JoinedRows(samples.rows, columns), samples.all_ids, samples.facts, samples.indices, (*samples.attached, "usual"))

    def _curve(self, subject: Subject, model: nn.Module, references: Samples, measured: Samples) -> list[Array]:
        who = next(who for who, known in subject.models() if known is model)
        later = any(model is each.bundle.model for each in subject.references[1:])  # of the references only the first is shown
        few = measured.subset(range(0 if later else min(self.pictures, len(measured))))
        budgets, points = self.budgets(), []

        def watch(reading: nn.Module, step: int) -> None:
            if step in budgets:
                points.append(knowledge_of(subject, reading, measured))
                show(subject, [(who, reading)], few, "forget", after=f"{self.name}, {step} {'step' if step == 1 else 'steps'}")

        inner = denoiser_of(model)
        reading = with_words(inner, lambda number, table: self.words(subject, number, table))
        how = self.how().model_copy(update={"parameters": r"\.words$"})
        seed = derive_seed(subject.engine.seed, self.name)
        fit(subject.engine, reading, self.plan(subject, inner), {"forget": references}, how, title=self.name, seed=seed, watch=watch)
        return points

    def passes(self, loss: LossFunction) -> list[Pass]:
        """Passes over the references, more than enough for all steps."""
        return [Pass("forget", loss)] * self.steps


def forgotten_tokens(problem: Problem) -> list[list[int]]:
    """For each text encoder the tokens of forgotten prompts that no retained prompt has."""
    sets = [torch.stack([samples[i]["prompt"] for i in range(len(samples))]) for samples in (problem.forget, problem.retain)]
    return own_tokens(*sets)
