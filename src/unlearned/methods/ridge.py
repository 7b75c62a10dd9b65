"""Ridge: fine-tuning on the retain set that also pulls the weights towards 0, less and less.

Paper: a baseline of Block et al. 2025 (NeurIPS), "Machine Unlearning under Overparameterization", arXiv 2505.22601; code:
jacob-block/overparameterized-unlearning.
Formula: step k = 0, 1, ... descends mean loss(D_r batch) + λ γᵏ ‖θ‖², θ all trained weights. The forget set only says how many steps an epoch has.
Defaults of the authors: AdamW with weight decay 0.01, batch 256; lr, λ and γ are tuned on grids such as lr {5e-3, 1e-3, 5e-4, 1e-4}, λ {0.01, 0.1, 0.5, 0.9},
γ {0.2, 0.4, 0.8}; epochs are few (5 to 15 there). From these here: lr 1e-3, λ 0.1, γ 0.8, 10 epochs.
Deviations: none. γ is per step, not per epoch: with many steps the penalty is soon gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan, Step
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def squared_norm(parameters: Iterable[Tensor]) -> Tensor:
    """‖θ‖² = Σ θ_i² over all tensors, a scalar."""
    return torch.stack([parameter.square().sum() for parameter in parameters]).sum()


@methods.register("ridge")
class Ridge(ObjectiveMethod):
    """Fine-tune with a falling ℓ2 penalty."""

    name: ClassVar[str] = "ridge"
    adapts: ClassVar[bool] = False
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adamw")
    lr: float = Optimisation.field("lr", 1e-3)
    weight_decay: float = Optimisation.field("weight_decay", 0.01)
    penalty: float = Field(0.1, ge=0, description="Weight λ of the squared norm in the first step.")
    decay: float = Field(0.8, ge=0, le=1, description="Factor γ on the penalty after each step.")
    paced_by: Literal["forget", "retain"] = Field("forget", description="The set that one epoch goes over once; batches of the retain set come from a stream.")

    def plan(self, problem: Problem, engine: Engine) -> Plan:  # noqa: ARG002
        penalty = self.penalty

        def weigh(model: nn.Module, forget: Batch, retain: Batch, step: Step) -> None:
            del model, forget, retain
            nonlocal penalty
            penalty = self.penalty * self.decay**step.done

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return engine.task.losses(model, retain).mean() + penalty * squared_norm(p for p in model.parameters() if p.requires_grad)

        return Plan([Pass("retain", loss) if self.paced_by == "retain" else Pass("both", loss, paced_by="forget")] * self.epochs, before_step=weigh)
