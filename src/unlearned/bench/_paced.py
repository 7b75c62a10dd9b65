"""Baselines as Block et al. 2025 (arXiv 2505.22601) compare with them, where a method of that name is another one here.

All take AdamW steps with weight decay 0.01 at the pace of the forget set: one epoch t = 0 ... T-1 is one pass over D_f, a retain batch B_r beside each forget
batch B_f. J is the mean loss, π the probability of each head.

    retrain   J(B_r), from fresh weights
    scrub     t even or t ≥ T - T_GD:  J(B_r) + λ KL(π_θ* ‖ π_θ) on B_r;  else  -λ_GA KL(π_θ* ‖ π_θ) on B_f.  Temperature 1
    salun     J(B_r) + λ_GA J(B_f with other labels), gradients only where |Σ_batches ∇J(D_f)| at θ* is above the median of all weights

Deviations: the original is in eval mode where it is a teacher, and where the mask is made; in their code it is in train mode.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.bench._headed import HeadedImages
from unlearned.engine.engine import Engine
from unlearned.engine.gradients import summed_gradients
from unlearned.engine.loop import Pass, Plan, Step
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.engine.settings import Optimisation
from unlearned.methods._method import ObjectiveMethod
from unlearned.methods.fine_tune import FineTune
from unlearned.methods.random_label import random_labels
from unlearned.methods.salun import saliency_mask
from unlearned.methods.scrub import distillation_loss
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def divergence(task: HeadedImages, student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over samples of Σ over heads KL(softmax(teacher) ‖ softmax(student)), a scalar; logits of all heads, (B, C)."""
    heads = zip(task.heads(student), task.heads(teacher), strict=True)
    return torch.stack([distillation_loss(said, wanted, 1.0) for said, wanted in heads]).sum()


class _Paced(ObjectiveMethod):
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adamw")
    weight_decay: float = Optimisation.field("weight_decay", 0.01)
    lambda_ga: float = Field(0.1, ge=0, description="λ_GA: weight of the forget batch.")


class BudgetRetrain(FineTune):
    """Retraining with the steps of an unlearning method."""

    name: ClassVar[str] = "retrain"

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        with seeded(derive_seed(engine.seed, "weights")):
            fresh = engine.task.fresh(problem.original)
        return super().unlearn(replace(problem, original=fresh), engine)


class PacedScrub(_Paced):
    """SCRUB at the forget set's pace, by head."""

    name: ClassVar[str] = "scrub"
    lambda_reg: float = Field(0.1, ge=0, description="λ: weight of the divergence on the retain batch.")
    descent_epochs: int = Field(0, ge=0, description="T_GD: so many last epochs descend.")

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        task = engine.task
        assert isinstance(task, HeadedImages)
        teacher = self.original_outputs(problem, engine)

        def descend(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            del forget
            student = task.outputs(model, retain)
            return task.losses_from(student, retain).mean() + self.lambda_reg * divergence(task, student, teacher(model, retain))

        def ascend(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            del retain
            return -self.lambda_ga * divergence(task, task.outputs(model, forget), teacher(model, forget))

        descents = [t % 2 == 0 or t >= self.epochs - self.descent_epochs for t in range(self.epochs)]
        return Plan([Pass("both", descend, paced_by="forget") if down else Pass("forget", ascend) for down in descents])


class PacedSalUn(_Paced):
    """SalUn at the forget set's pace, with other labels in every head."""

    name: ClassVar[str] = "salun"

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        task = engine.task
        assert isinstance(task, HeadedImages)
        gradients = summed_gradients(engine, copy.deepcopy(problem.original.model), problem.forget, self.batch_size)
        kept = {name: mask.to(engine.device) for name, mask in saliency_mask(gradients, 0.5).items()}

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            mistaken = forget | {name: random_labels(forget[name], classes, "other") for name, classes in task.target_sizes.items()}
            return task.losses(model, retain).mean() + self.lambda_ga * task.losses(model, mistaken).mean()

        def mask(model: nn.Module, step: Step) -> None:
            del step
            for parameter, keep in zip(model.parameters(), kept.values(), strict=True):
                if parameter.grad is not None:
                    parameter.grad.mul_(keep)

        return Plan([Pass("both", loss, paced_by="forget")] * self.epochs, after_backward=mask)
