"""ℓ1-sparse: fine-tuning on the retain set that also shrinks the weights towards a sparse model, in which forgetting is said to be easier.

Paper: Jia et al. 2023 (NeurIPS), "Model Sparsity Can Simplify Machine Unlearning", arXiv 2304.04934; code: OPTML-Group/Unlearn-Saliency.
Formula: descend mean CE over D_r + α_t ‖θ‖₁, θ all trained weights, α_t = α (1 − t / (T − T₀)) in epoch t = 0, 1, ... of T, and 0 in the last T₀ epochs.
Defaults of the authors: 10 epochs, lr 0.01, T₀ = 0; SGD, momentum 0.9, weight decay 5e-4, batch 256. α is tuned; 5e-4 here is the value that AMUN (arXiv
2503.00917) names for it, not the authors'.
Deviations: none.
Another method of this name: Block et al. 2025 (arXiv 2505.22601) and AMUN have the factor 2 − 2t/T: the same with twice the α. Block et al. use AdamW, and
their epoch goes over the forget set (`paced_by`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import LossFunction, Pass, Plan
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def l1_norm(parameters: Iterable[Tensor]) -> Tensor:
    """‖θ‖₁ = Σ |θ_i| over all tensors, a scalar; its gradient at 0 is taken to be 0."""
    return torch.stack([parameter.abs().sum() for parameter in parameters]).sum()


def l1_weight(alpha: float, epoch: int, epochs: int, without: int) -> float:
    """α_t = α (1 − t / (T − T₀)) for t < T − T₀, then 0.

    Args:
        alpha: α.
        epoch: t, from 0.
        epochs: T.
        without: T₀ < T.
    """
    return max(0.0, alpha * (1 - epoch / (epochs - without)))


@methods.register("l1-sparse")
class L1Sparse(ObjectiveMethod):
    """Fine-tune with a falling ℓ1 penalty."""

    name: ClassVar[str] = "l1-sparse"
    adapts: ClassVar[bool] = False
    alpha: float = Field(5e-4, ge=0, description="Weight α of the ℓ1 norm in the first epoch.")
    no_l1_epochs: int = Field(0, ge=0, description="T₀: so many last epochs have no penalty.")
    paced_by: Literal["forget", "retain"] = Field("retain", description="The set that one epoch goes over once; batches of the retain set come from a stream.")

    @model_validator(mode="after")
    def _some_epochs_have_a_penalty(self) -> Self:
        if self.no_l1_epochs >= self.epochs:
            raise ValueError(f"none of the {self.epochs} epochs would have a penalty; lower no_l1_epochs, or raise epochs")
        return self

    def plan(self, problem: Problem, engine: Engine) -> Plan:  # noqa: ARG002
        def loss_with(weight: float) -> LossFunction:
            def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
                return engine.task.losses(model, retain).mean() + weight * l1_norm(p for p in model.parameters() if p.requires_grad)

            return loss

        losses = [loss_with(l1_weight(self.alpha, epoch, self.epochs, self.no_l1_epochs)) for epoch in range(self.epochs)]
        return Plan([Pass("retain", loss) if self.paced_by == "retain" else Pass("both", loss, paced_by="forget") for loss in losses])
