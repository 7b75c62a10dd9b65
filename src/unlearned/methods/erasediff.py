"""EraseDiff: keep the retain loss low, and push the forget loss towards the lowest value that the model could reach.

Paper: Wu et al. 2024, "EraseDiff: Erasing Data Influence in Diffusion Models", arXiv 2401.05779; code of the authors: JingWu321/EraseDiff.
Formula: descend ℓ_r + λ (ℓ_f − v̂), ℓ_r the denoising loss on D_r, ℓ_f = mean (ε_θ(x_t, c_f) − sg ε_θ(x_t, c'))² on D_f with c' another prompt or class, and
v̂ the value of ℓ_f after K steps on it alone. λ is fixed, or with `eta` η: λ = max(0, η − cos(∇ℓ_r, ∇(ℓ_f − v̂))).
Defaults of the authors (DDPM on CIFAR-10): λ 0.1, 4 epochs, lr 1e-4, batch 128, the whole UNet; a wrong label drawn for each batch; K 2.
Deviations: v̂ is a constant of the step, so that neither the gradient nor λ depends on it; the K steps that find it are therefore not made. c' is the condition
of the retained sample beside the forget sample: one for each sample, not one for the batch. No moving average of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import LossFunction
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._diffusion import DiffusionMethod, diffusion_task, need_conditions
from unlearned.methods._relabelled import relabelled_loss
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def adaptive_weight(retain: Tensor, forget: Tensor, eta: float) -> float:
    """max(0, η − cos(g_r, g_f)).

    Args:
        retain: ∇ℓ_r, flat.
        forget: ∇ℓ_f, flat.
        eta: η.
    """
    cosine = torch.dot(retain, forget) / (retain.norm() * forget.norm()).clamp(min=1e-12)
    return max(0.0, eta - float(cosine))


@methods.register("erasediff")
class EraseDiff(DiffusionMethod):
    """Retain loss and a weighted forget loss towards other prompts."""

    name: ClassVar[str] = "erasediff"
    lr: float = Optimisation.field("lr", 1e-4)
    batch_size: int = Optimisation.field("batch_size", 128)
    epochs: int = Optimisation.field("epochs", 4)
    steps: int | None = DiffusionMethod.field("steps", None)
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adam")
    forget_weight: float = Field(0.1, ge=0, description="λ, where it is fixed.")
    eta: float | None = Field(None, gt=0, description="η of the adaptive λ; None: λ is fixed.")

    def objective(self, problem: Problem, engine: Engine) -> LossFunction:
        need_conditions(problem)
        task = diffusion_task(engine)

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            kept, erased = task.losses(model, retain).mean(), relabelled_loss(task, model, forget, retain)
            weight = self.forget_weight
            if self.eta is not None:
                weights = [p for p in model.parameters() if p.requires_grad]
                towards_kept, towards_erased = (_flat(engine.gradients(value, weights, retain_graph=True), weights) for value in (kept, erased))
                weight = adaptive_weight(towards_kept, towards_erased, self.eta)
            return kept + weight * erased

        return loss


def _flat(gradients: Sequence[Tensor | None], weights: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.zeros_like(w).flatten() if g is None else g.flatten() for w, g in zip(weights, gradients, strict=True)])
