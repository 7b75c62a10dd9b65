"""A forget term that has to hold under an adversary as well: min over θ of the mean over D_f of max over δ of L_f(θ; h + δ), beside a clean retain term."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Plan, Step
from unlearned.engine.randomness import derive_seed
from unlearned.errors import Fault, InputError, collecting
from unlearned.methods._adversary import Adversary, ProjectedGradient, RefusalFeature
from unlearned.methods._forget_retain import ForgetRetain
from unlearned.methods._method import Measure
from unlearned.problem import Problem
from unlearned.tasks._decoders import blocks_of
from unlearned.tasks._directions import Positions
from unlearned.tasks._task import Batch


def worst(clean: Tensor, attacked: Tensor) -> Tensor:
    """Mean over samples of the larger of two losses, a scalar; both (B,)."""
    return torch.maximum(clean, attacked).mean()


def expected(clean: Tensor, attacked: Tensor, probability: float) -> Tensor:
    """(1 − p) · mean(clean) + p · mean(attacked), a scalar; both (B,)."""
    return (1 - probability) * clean.mean() + probability * attacked.mean()


class ForgetLosses(ABC):
    """The forget loss of each sample, as a function of the model in whatever state it is in."""

    def begin(self, now: Step) -> None:
        """Called before each step."""
        del now

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B,), differentiable."""


class Robust(ForgetRetain):
    """Settings of the inner problem."""

    inner: Literal["none", "max", "expected", "sampled"] = Field(
        "max",
        description="Forget loss: of the clean model; the larger of clean and attacked for each sample; their mean with weight `probability`; or, in each "
        "step, attacked with that probability.",
    )
    probability: float = Field(0.5, ge=0, le=1, description="Weight or probability of the attacked loss, with `inner` expected or sampled.")
    solver: Literal["refusal-feature", "pgd"] = Field("refusal-feature", description="The attack: removal of the refusal feature, or gradient ascent.")
    positions: Positions = Field("all", description="Tokens whose activations are attacked: all, or the last of the prompt.")
    refresh: int = Field(4, ge=1, description="Refusal feature: steps after which it is measured anew.")
    feature_prompts: int = Field(32, ge=1, description="Refusal feature: prompts of either kind that it is measured on.")
    feature_share: float = Field(0.75, gt=0, le=1, description="Refusal feature: share of the blocks, counted from the last, whose inputs lose it.")
    keep_retain_mean: bool = Field(False, description="Refusal feature: the component becomes the mean of the retain prompts in the place of 0.")
    layer: int | None = Field(None, ge=0, description="PGD: block whose input is perturbed; 0: the embeddings; None: the middle one.")
    radius: float = Field(0.1, gt=0, description="PGD: largest perturbation, as a share of the norm of each hidden state.")
    ascent_steps: int = Field(4, ge=1, description="PGD: steps of the ascent.")

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """A layer that the model does not have."""
        found = super().faults(problem, engine)
        with collecting(found):
            self._attacked_layer(len(blocks_of(problem.original.model)))
        return found

    def _attacked_layer(self, count: int) -> int:
        """The block whose input `pgd` perturbs, of so many."""
        layer = count // 2 if self.layer is None else self.layer
        if self.solver == "pgd" and layer >= count:
            raise InputError(Fault("method.layer", f"there is no layer {layer}; the model has {count}, counted from 0.", f"At most {count - 1}."))
        return layer

    @abstractmethod
    def forget_losses(self, engine: Engine, memory: dict[str, Tensor]) -> ForgetLosses:
        """The forget loss of each sample; what it carries from step to step is in `memory`."""

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        """Of the clean model."""
        del problem
        losses = self.forget_losses(engine, {})
        return lambda model, batch: losses(model, batch).mean()

    def adversary(self, problem: Problem, engine: Engine, losses: Measure, memory: dict[str, Tensor]) -> Adversary:
        """The inner solver.

        Raises:
            InputError: if the model has no such layer.
        """
        count = len(blocks_of(problem.original.model))
        if self.solver == "pgd":
            layer = self._attacked_layer(count)
            return ProjectedGradient(losses, layer=layer, radius=self.radius, steps=self.ascent_steps, positions=self.positions)
        layers = range(min(count - 1, round(count * (1 - self.feature_share))), count)
        return RefusalFeature(
            problem,
            engine,
            memory,
            layers=layers,
            every=self.refresh,
            count=self.feature_prompts,
            positions=self.positions,
            keep_retain=self.keep_retain_mean,
            title=self.name,
        )

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        memory: dict[str, Tensor] = {}
        losses = self.forget_losses(engine, memory)
        adversary = self.adversary(problem, engine, losses, memory)
        attacked_now = False

        def before_step(model: nn.Module, forget: Batch, retain: Batch, now: Step) -> None:
            del forget, retain
            nonlocal attacked_now
            losses.begin(now)
            attacked_now = self.inner == "sampled" and coin(engine.seed, now.done) < self.probability
            if self.inner != "none":
                adversary.begin(model, now)

        def term(model: nn.Module, batch: Batch) -> Tensor:
            if self.inner in {"none", "sampled"}:
                with adversary.attacking(model, batch) if attacked_now else nullcontext():
                    return losses(model, batch).mean()
            clean = losses(model, batch)
            with adversary.attacking(model, batch):
                attacked = losses(model, batch)
            return worst(clean, attacked) if self.inner == "max" else expected(clean, attacked, self.probability)

        return Plan(self.passes(problem, engine, term), before_step=before_step, memory=memory)


def coin(seed: int, step: int) -> float:
    """Uniform in [0, 1), a function of seed and step: the same on all processes and after an interruption."""
    return float(np.random.default_rng(derive_seed(seed, "inner", step)).random())
