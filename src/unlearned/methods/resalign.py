"""ResAlign: a diffusion model that no longer draws a concept, and does not learn it again when it is fine-tuned on something else.

Paper: Li et al. 2025, "ResAlign", NeurIPS 2025, arXiv 2507.16302; code of the authors: AntigoneRandy/ResAlign.
Formula: J(θ) = (1 − β) L(θ) + β · mean_j L(w_j(θ)) + α R(θ). L(θ) = −E ‖ε − ε_θ(z_t, t, c)‖² over D_f, gradient ascent on the denoising loss (`harm` esd:
E ‖ε_θ(z_t, t, c) − (ε_o(z_t, t, ∅) − η (ε_o(z_t, t, c) − ε_o(z_t, t, ∅)))‖² instead, bounded below); R = E ‖ε_θ(z_t, t, c) − ε_o(z_t, t, c)‖² over D_r,
ε_o the original. w_j: the weights after fine-tuning j of a pool, through which the gradient goes as in `resilient`: (I + γH)⁻¹ ∇L(w_j), K steps of Richardson
iteration.
Defaults of the authors: rank-4 adapters on queries, keys, values and outputs of all attention, both factors drawn small; 160 steps of AdamW, lr 2e-4, weight
decay 0.01; β 0.8; α 1.6 for the first half, then towards 2.0 along a sigmoid; γ 1, K 5; three of fifteen fine-tunings at each step; a forget batch of 1
beside a retain batch of 4; gradients with a norm above 0.2 are damped, at most five times, then only the direct gradient is followed.
Deviations: each fine-tuning of the pool has data of its own, begins at θ, and has a fresh optimiser; in the code three share a name and with it their data, and
Adam keeps its moments. Full fine-tuning is differentiated in the merged weights and carried back to the factors by the chain rule; the code projects the fine-
tuned weights on rank 4 first. The same noise at θ and at w_j; in the code, as with `noise: epsilon`, the same latents and timesteps, and ε anew. A retry uses
the same batch. Where the direct gradient alone is above the limit of norms nothing is rehearsed; in the code all retries fail there, unless the two gradients
cancel. What divergence is, see `guard`. The factor 0.3 on the gradient, which AdamW undoes, is left out. What `harm: esd` leads away from is the empty prompt;
the code has a setting for it. The fine-tuning with four images and a prior (DreamBooth) keeps the prompts of its samples, where the code has one fixed prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from unlearned.engine.adapters import Lora
from unlearned.engine.engine import Engine
from unlearned.engine.finetuning import read_pool
from unlearned.engine.loop import LossFunction, Pass, Plan
from unlearned.engine.rehearsal import Rehearsal, pool_faults
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, collecting, raise_faults
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.methods._resilience import Course, Resilience, asked_of, distance_from_original, predicted
from unlearned.problem import Problem
from unlearned.settings import Pattern
from unlearned.tasks._task import Batch
from unlearned.tasks.image_generation import ATTENTION, ImageGeneration, empty_condition


def led_away(given: Tensor, empty: Tensor, eta: float) -> Tensor:
    """ε(∅) − η (ε(c) − ε(∅)): the prediction without the prompt, and away from what the prompt adds. All (B, C, H, W)."""
    return empty - eta * (given - empty)


@methods.register("resalign")
class ResAlign(ObjectiveMethod, Resilience):
    """Ascend the denoising loss of the concept, now and after rehearsed fine-tunings, and stay near the original elsewhere."""

    name: ClassVar[str] = "resalign"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-generation"})
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adamw")
    lr: float = Optimisation.field("lr", 2e-4)
    weight_decay: float = Optimisation.field("weight_decay", 0.01)
    batch_size: int = Optimisation.field("batch_size", 4)
    forget_batch_size: int = Field(1, ge=1, description="Forget samples per step; `batch_size` is that of the retain set.")
    steps: int | None = Field(160, ge=1, le=10_000_000, description="Optimiser steps; None: as many as `epochs` passes over the forget set take.")
    parameters: Pattern = Optimisation.field("parameters", ATTENTION)
    lora: Lora | None = Field(Lora(rank=4, alpha=4, start="small"), description="Adapters that are trained; None: the weights themselves.")
    harm: Literal["ascent", "esd"] = Field("ascent", description="L: the negated denoising loss, or the distance from what ESD teaches.")
    eta: float = Field(1.0, ge=0, description="η: how far ESD's target leads away from the concept.")
    alpha: float = Resilience.field("alpha", 1.6)
    last_alpha: float | None = Field(
        2.0, ge=0, description="α that the second half of the training goes to; None, and where `alpha` is given without it: it stays."
    )
    norm_limit: float | None = Resilience.field("norm_limit", 0.2)

    @model_validator(mode="before")
    @classmethod
    def _alpha_alone_stays(cls, given: Any) -> Any:
        """The authors' way from 1.6 to 2.0 belongs to their α: another one, given alone, is meant for the whole training."""
        return {"last_alpha": None, **given} if isinstance(given, Mapping) and "alpha" in given else given

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """A model without the empty prompt that ESD's target needs, and fine-tunings without data or weights."""
        found, adapted = super().faults(problem, engine), None
        with collecting(found):
            adapted = self.adapted(problem)
        found += pool_faults(read_pool(self.pool), problem.original.model, adapted, problem.retain, engine.seed)
        if self.harm == "esd":
            with collecting(found):
                empty_condition(problem.original.model, 1)
        return found

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        one = Pass("forget", self._objective(problem, engine))
        if self.steps is None:
            return Plan([one] * self.epochs, forget_batch_size=self.forget_batch_size)
        # A last batch of one sample joins the batch before it.
        least = max(1, math.ceil(len(problem.forget) / self.forget_batch_size) - 1)
        return Plan([one] * math.ceil(self.steps / least), forget_batch_size=self.forget_batch_size, max_steps=self.steps)

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        courses: list[Course] = []

        def revised(plan: Plan, model: nn.Module) -> Plan:
            rehearsal = Rehearsal(engine, model, problem.original.model, read_pool(self.pool), problem.retain, problem.forget)
            courses.append(Course(self, rehearsal, engine, distance_from_original(problem, engine, self) if self.keeps_near else None, self.name))
            return courses[0].revised(plan)

        model = self.carried_out(problem, engine, revised)
        courses[0].conclude()
        return model

    def _objective(self, problem: Problem, engine: Engine) -> LossFunction:
        task = engine.task
        assert isinstance(task, ImageGeneration)
        if self.harm == "ascent":
            return lambda model, forget, retain: -task.losses(model, forget).mean()  # noqa: ARG005
        raise_faults(self.faults(problem, engine))
        original = self.original_outputs(problem, engine, predicted)

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            del retain
            asked = asked_of(task, model, forget)
            nothing = asked | {"condition": empty_condition(model, len(asked["noisy"]))}
            target = led_away(original(model, asked), original(model, nothing), self.eta)
            return ((predicted(model, asked) - target) ** 2).mean()

        return loss
