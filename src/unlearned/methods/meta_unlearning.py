"""Meta-unlearning: unlearn so that learning the concept again destroys what is related to it.

Paper: Gao et al. 2025 (ICCV), "Meta-Unlearning on Diffusion Models: Preventing Relearning Unlearned Concepts", arXiv 2410.12777; code of the authors:
sail-sg/Meta-Unlearning.
Formula: one step follows ∇L_unlearn(θ) + γ_11 ∇ℓ(θ; D_irr) + γ_12 ∇ℓ(θ; D_rel) − γ_21 ∇ℓ(θ'; D_f) − γ_22 ∇ℓ(θ'; D_rel) − γ_23 ∇ℓ(θ'; D_irr), ℓ the denoising
loss and θ' = θ after `inner_steps` steps of AdamW on D_f. First order: gradients at θ' are applied to θ as they are. D_rel are retained samples related to the
concept, D_irr the others. L_unlearn is that of ESD.
Defaults of the authors: lr 1e-5, 1000 to 1500 steps, weights γ about 0.1 and 0.01.
Deviations: which of the γ is 0.1 and which 0.01 differs between their scripts; here those of θ are 0.1 and those of θ' 0.01. θ' is a few steps on the forget
batch at hand, anew from θ in each step; the authors make a pass over the data. `related` names the related samples by a filter; without it all retained
samples are both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Plan, Step
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, collecting
from unlearned.methods import methods
from unlearned.methods._diffusion import DiffusionMethod, chosen
from unlearned.methods.esd import ESD
from unlearned.problem import Problem
from unlearned.tasks._task import Batch

Gradients = Sequence[Tensor]


def meta_gradient(before: Sequence[Gradients], after: Sequence[Gradients], kept: Sequence[float], lost: Sequence[float]) -> list[Tensor]:
    """What is added to ∇L_unlearn: Σ kept_k before_k − Σ lost_k after_k, tensor by tensor.

    Args:
        before: gradients at θ of D_irr, D_rel.
        after: gradients at θ' of D_f, D_rel, D_irr.
        kept: γ_11, γ_12.
        lost: γ_21, γ_22, γ_23.
    """
    plus = [sum((w * g for w, g in zip(kept, parts, strict=True)), torch.zeros(())) for parts in zip(*before, strict=True)]
    minus = [sum((w * g for w, g in zip(lost, parts, strict=True)), torch.zeros(())) for parts in zip(*after, strict=True)]
    return [p - m for p, m in zip(plus, minus, strict=True)]


@methods.register("meta-unlearning")
class MetaUnlearning(ESD):
    """ESD, and a trap for who learns the concept again."""

    name: ClassVar[str] = "meta-unlearning"
    over: ClassVar = "both"
    lr: float = Optimisation.field("lr", 1e-5)
    steps: int | None = DiffusionMethod.field("steps", 1000)
    related: str | None = Field(None, description="Filter for the retained samples that are related to the concept: label in [5, 8]; None: all.")
    keep_other: float = Field(0.1, ge=0, description="γ_11: weight of the loss on unrelated samples.")
    keep_related: float = Field(0.1, ge=0, description="γ_12: weight of the loss on related samples.")
    lose_concept: float = Field(0.01, ge=0, description="γ_21: how much the concept is lost after it was learned again.")
    lose_related: float = Field(0.01, ge=0, description="γ_22: how much related samples are lost then.")
    lose_other: float = Field(0.01, ge=0, description="γ_23: how much unrelated samples are lost then.")
    inner_steps: int = Field(1, ge=1, le=1000, description="Steps on the concept from θ to θ'.")
    inner_lr: float = Field(1e-5, gt=0, description="Learning rate of these steps.")

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """Further: a filter that chooses nothing."""
        found = super().faults(problem, engine)
        with collecting(found):
            chosen(problem.retain, self.related, "method.related")
        return found

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        sets = super().sets(problem, engine)
        related = set(chosen(problem.retain, self.related, "method.related").ids)
        return sets | {"retain": problem.retain.attach("related", torch.tensor([name in related for name in problem.retain.ids]))}

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        task, none_apart = engine.task, self.related is None
        added: list[Tensor] = []

        def gradients(model: nn.Module, batch: Batch) -> list[Tensor]:
            weights = _trained(model)
            if not len(batch["labels"]):
                return [torch.zeros_like(p) for p in weights]
            found = engine.gradients(task.losses(model, batch).mean(), weights)
            return [torch.zeros_like(p) if g is None else g for p, g in zip(weights, found, strict=True)]

        def look_ahead(model: nn.Module, forget: Batch, retain: Batch, step: Step) -> None:
            del step
            related = retain["related"]
            rel, irr = (retain, retain) if none_apart else ({name: t[mask] for name, t in retain.items()} for mask in (related, ~related))
            before = gradients(model, irr), gradients(model, rel)
            start = [p.detach().clone() for p in _trained(model)]
            optimizer = torch.optim.AdamW(_trained(model), lr=self.inner_lr)
            for _ in range(self.inner_steps):
                for parameter, gradient in zip(_trained(model), gradients(model, forget), strict=True):
                    parameter.grad = gradient
                optimizer.step()
            after = gradients(model, forget), gradients(model, rel), gradients(model, irr)
            with torch.no_grad():
                for parameter, value in zip(_trained(model), start, strict=True):
                    parameter.copy_(value)
            added[:] = meta_gradient(before, after, (self.keep_other, self.keep_related), (self.lose_concept, self.lose_related, self.lose_other))

        def add(model: nn.Module, step: Step) -> None:
            del step
            scale = engine.loss_scale  # of the gradients that are there already
            for parameter, gradient in zip(_trained(model), added, strict=True):
                parameter.grad = scale * gradient if parameter.grad is None else parameter.grad + scale * gradient

        return replace(super().plan(problem, engine), before_step=look_ahead, after_backward=add)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
