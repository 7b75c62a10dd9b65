"""Textual inversion: does the model still draw the concept if it is asked with another vector for its word?

Papers: Gal et al. 2022, "An Image is Worth One Word", arXiv 2208.01618; against erased models: Pham et al. 2023, "Circumventing Concept Erasure Methods",
arXiv 2308.01508, concept inversion.
Formula: v* = argmin_v E ‖ε − ε_θ(x_t, t, c(v))‖² over a few references, where c(v) is the prompt with v in the place of the concept's word. θ is frozen.
Defaults of the papers: steps in the thousands at rates around 5e-3, batches of 4; not taken from their code. Here: 500 steps of AdamW at 5e-3, batch 4.
Deviations: v starts as the vector of the word itself, not of another word, so that the curve begins with the model as it is. The concept's words are the
tokens that forgotten prompts have and retained ones have not; each has its own vector. References are drawn by the original, as in MemoRa.
Findings: as of `memora`: `knowledge`, `retention`, `recovery`, `half_recovery_steps`, `recovery_area` and the label, with the steps as budget.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.attacks import attacks
from unlearned.attacks._prompting import Prompting, forgotten_tokens
from unlearned.engine.loop import Plan
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks._words import Words, replaced
from unlearned.tasks.image_generation import Denoiser


@attacks.register("textual-inversion")
class TextualInversion(Prompting):
    """Learn a new vector for the concept's word."""

    name: ClassVar[str] = "textual-inversion"
    pairs: int = Field(3, ge=1, le=1000, description="Pairs of references for each class.")
    lr: float = Optimisation.field("lr", 5e-3)
    batch_size: int = Optimisation.field("batch_size", 4)
    weight_decay: float = Optimisation.field("weight_decay", 1e-2)

    @property
    def wanted_pairs(self) -> int:
        return self.pairs

    def faults(self, problem: Problem) -> list[Fault]:
        found = super().faults(problem)
        if found or all(forgotten_tokens(problem)):
            return found
        what = "every word of the forgotten prompts is in retained prompts, too, so that no word names the concept."
        return [Fault("name", what, "Use memora or prompt-search, or captions that name the concept.")]

    def words(self, subject: Subject, number: int, table: nn.Module) -> Words:
        weight = table.weight
        assert isinstance(weight, Tensor)
        return Words(table, weight.detach()[torch.tensor(forgotten_tokens(subject.problem)[number], device=weight.device)])

    def asked(self, problem: Problem, prompts: Tensor) -> Tensor:
        return replaced(prompts, forgotten_tokens(problem))

    def how(self) -> Optimisation:
        return Optimisation(optimizer="adamw", lr=self.lr, batch_size=self.batch_size, weight_decay=self.weight_decay)

    def plan(self, subject: Subject, model: Denoiser) -> Plan:
        del model
        task = subject.engine.task

        def loss(reading: nn.Module, known: Batch, retain: Batch) -> Tensor:
            del retain
            return task.losses(reading, known).mean()

        return Plan(self.passes(loss), max_steps=self.steps)
