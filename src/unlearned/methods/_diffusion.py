"""What methods for diffusion models share: which part of the UNet is trained, how long, and batches whose prompts are exchanged."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn, no_grad

from unlearned.data.filters import select
from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating
from unlearned.engine.loop import LossFunction, Pass, Plan, only
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, InputError, collecting
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.settings import Pattern
from unlearned.tasks.image_generation import ImageGeneration, Noised, denoiser_of

PARTS = {
    "cross-attention": r"^unet\..*attn2\.",
    "keys-and-values": r"^unet\..*attn2\.to_[kv]\.",
    "attention": r"^unet\..*attn[12]\.",
    "not-cross-attention": r"^unet\.(?!.*attn2\.)",
    "unet": r"^unet\.",
}
"""Regular expressions for parts of the model."""


class DiffusionMethod(ObjectiveMethod):
    """An objective on batches of forget and retain samples, over a number of steps or of epochs; an epoch goes once over the forget set."""

    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-generation"})
    part: ClassVar[str] = "unet"
    """Which of `PARTS` is trained, unless a pattern is given."""
    over: ClassVar[Literal["forget", "both"]] = "both"
    """Whether its steps need retain samples."""
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adam")
    weight_decay: float = Optimisation.field("weight_decay", 0.0)
    steps: int | None = Field(1000, ge=1, le=10_000_000, description="Optimiser steps; None: as many as `epochs` passes over the forget set take.")
    parameters: Pattern = Field("", description="Regular expression for the names of the parameters that may change; empty: the part that the method is about.")

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:  # noqa: ARG002
        """A model that no concept can be asked for, or without weights of the kind that is trained."""
        found: list[Fault] = []
        with collecting(found):
            need_conditions(problem)
        if self.lora is None:
            with collecting(found):
                only(problem.original.model, self.trained(problem))
        return found

    @abstractmethod
    def objective(self, problem: Problem, engine: Engine) -> LossFunction:
        """Scalar loss of (model, forget batch, retain batch), to be minimised."""

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        one = Pass(self.over, self.objective(problem, engine), paced_by="forget")
        if self.steps is None:
            return Plan([one] * self.epochs)
        # A last batch of one sample joins the batch before it.
        least = max(1, math.ceil(len(problem.forget) / self.batch_size) - 1)
        return Plan([one] * math.ceil(self.steps / least), max_steps=self.steps)

    def trained(self, problem: Problem) -> str:
        del problem
        return self.parameters or PARTS[self.part]


def diffusion_task(engine: Engine) -> ImageGeneration:
    """The engine's task, which is one of image generation."""
    assert isinstance(engine.task, ImageGeneration)
    return engine.task


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over samples and elements of (prediction − target)², a scalar."""
    return ((prediction - target) ** 2).mean()


def asked(model: nn.Module, noised: Noised, condition: Tensor | None) -> Tensor:
    """The prediction for the same noisy latents under another condition, differentiable."""
    out: Tensor = model(noised.noisy, noised.timesteps, condition)
    return out


def told(model: nn.Module, noised: Noised, condition: Tensor | None) -> Tensor:
    """The same without gradients, in eval mode."""
    with no_grad(), evaluating(model):
        return asked(model, noised, condition)


def beside(condition: Tensor | None, count: int) -> Tensor | None:
    """As many conditions, from the first on and again where there are too few."""
    return None if condition is None else condition[torch.arange(count, device=condition.device) % len(condition)]


def need_conditions(problem: Problem) -> None:
    """Refuse a model without conditions.

    Raises:
        InputError: if the model draws without being told what.
    """
    if denoiser_of(problem.original.model).conditioned_on is None:
        what = "the model is conditioned on nothing, so that no concept can be asked for."
        raise InputError(Fault("model", what, "Use a model with prompts or classes, or gradient-ascent."))


def chosen(samples: Samples, where: str | None, field: str) -> Samples:
    """The retained samples that a filter chooses; None: all.

    Raises:
        InputError: if the filter is wrong or chooses none.
    """
    if where is None:
        return samples
    found = samples.subset(select(samples, where, field))
    if not len(found):
        raise InputError(Fault(field, "no retained sample is chosen.", "Choose some by columns of data.train."))
    return found
