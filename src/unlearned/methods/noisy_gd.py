"""Noisy gradient descent (NGD): fine-tuning on the retain set with noise on the gradients.

Paper: a baseline of Block et al. 2025 (NeurIPS), "Machine Unlearning under Overparameterization", arXiv 2505.22601; code:
jacob-block/overparameterized-unlearning.
Formula: step with g = ∇ mean loss(D_r batch) + σ ξ, ξ ~ N(0, 1) for each trained weight, anew in each step. The forget set only says how many steps an epoch
has.
Defaults of the authors: AdamW with weight decay 0.01, batch 256; lr and σ are tuned on grids such as lr {5e-3, 1e-3, 5e-4, 1e-4}, σ {0.1, 1, 10}; epochs are
few (5 to 15 there). From these here: lr 1e-3, σ 0.1, 10 epochs.
Deviations: none. No privacy is claimed: gradients are not clipped before the noise is added (`max_grad_norm` scales their sum), and nothing is accounted.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan, Step
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, raise_faults
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def noisy(gradient: Tensor, sigma: float) -> Tensor:
    """G + σ ξ, ξ standard normal from torch's global generator, shaped like g."""
    return gradient + sigma * torch.randn_like(gradient)


@methods.register("noisy-gd")
class NoisyGD(ObjectiveMethod):
    """Fine-tune with noisy gradients."""

    name: ClassVar[str] = "noisy-gd"
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adamw")
    lr: float = Optimisation.field("lr", 1e-3)
    weight_decay: float = Optimisation.field("weight_decay", 0.01)
    sigma: float = Field(0.1, ge=0, description="Standard deviation σ of the noise on each entry of the gradient.")
    paced_by: Literal["forget", "retain"] = Field("forget", description="The set that one epoch goes over once; batches of the retain set come from a stream.")

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:  # noqa: ARG002
        """A precision in which gradients are scaled up by a large factor, beside which the noise would be none."""
        if engine.compute.precision != "fp16":
            return []
        return [Fault("compute.precision", "noise cannot be added to the scaled gradients of fp16.", "Use bf16 or no.")]

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        raise_faults(self.faults(problem, engine))

        def add_noise(model: nn.Module, step: Step) -> None:
            del step
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.copy_(noisy(parameter.grad, self.sigma))

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return engine.task.losses(model, retain).mean()

        return Plan([Pass("retain", loss) if self.paced_by == "retain" else Pass("both", loss, paced_by="forget")] * self.epochs, after_backward=add_noise)
