"""What many objectives share, most of them for language models: a forget term and a retain term in each step."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan
from unlearned.engine.settings import Optimisation
from unlearned.methods._method import Measure, ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import TextGeneration, answering


def token_divergence(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean over the marked tokens of KL(teacher ‖ student), a scalar: neither the prompt nor the padding is part of it.

    Args:
        student: logits, (B, T, V).
        teacher: logits, (B, T, V).
        mask: (B, T), true where a token counts.
    """
    student, teacher = student[mask], teacher[mask]
    return F.kl_div(student.log_softmax(dim=-1), teacher.log_softmax(dim=-1), reduction="none", log_target=True).sum(dim=-1).mean()


class ForgetRetain(ObjectiveMethod):
    """L = γ · forget term + α · retain term; an epoch goes once over the forget set, with a batch of the retain set beside each of its batches.

    The defaults are those of the common reference implementation (open-unlearning): AdamW, lr 1e-5, no weight decay, 32 samples per step, 10 epochs.
    """

    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adamw")
    lr: float = Optimisation.field("lr", 1e-5)
    weight_decay: float = Optimisation.field("weight_decay", 0.0)
    batch_size: int = Optimisation.field("batch_size", 32)
    gamma: float = Field(1.0, ge=0, description="Weight of the forget term.")
    alpha: float = Field(1.0, ge=0, description="Weight of the retain term; 0: the retain set is not used.")
    retain_loss: Literal["nll", "kl"] = Field("nll", description="Retain term: negative log-likelihood, or divergence from the original.")

    @abstractmethod
    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        """A function of model and forget batch: a scalar to be minimised."""

    def retain_term(self, problem: Problem, engine: Engine) -> Measure:
        """A function of model and retain batch: a scalar to be minimised."""
        if self.retain_loss == "nll":
            return lambda model, batch: engine.task.losses(model, batch).mean()
        task = text_task(engine)
        teacher = self.original_outputs(problem, engine, task.token_logits)
        return lambda model, batch: token_divergence(task.token_logits(model, batch), teacher(model, batch), answering(batch).mask)

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        return Plan(self.passes(problem, engine, self.forget_term(problem, engine)))

    def passes(self, problem: Problem, engine: Engine, forget_term: Measure) -> list[Pass]:
        """The passes with this forget term, and the retain term beside it."""
        if self.alpha == 0:
            return [Pass("forget", lambda model, forget, _: self.gamma * forget_term(model, forget))] * self.epochs
        retain_term = self.retain_term(problem, engine)

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            return self.gamma * forget_term(model, forget) + self.alpha * retain_term(model, retain)

        return [Pass("both", loss, paced_by="forget")] * self.epochs


def text_task(engine: Engine) -> TextGeneration:
    """The engine's task, which is one of text."""
    assert isinstance(engine.task, TextGeneration)
    return engine.task


def padded(answers: list[Tensor]) -> Tensor:
    """Token ids of answers as one tensor, (N, A), −1 behind the end of each."""
    return torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=-1)
