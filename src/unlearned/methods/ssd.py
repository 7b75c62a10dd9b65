"""Selective synaptic dampening (SSD): shrink the weights that matter for the forget set far more than for all data. No training.

Paper: Foster et al. 2024 (AAAI), arXiv 2308.07707, equations 3 to 6; code of the authors: if-loops/selective-synaptic-dampening.
Formula: I_D and I_f are means of squared batch gradients, in eval mode, on D = D_f ∪ D_r and on D_f. Where I_f > α I_D: θ ← θ · min(λ I_D / I_f, 1).
Defaults of the authors: α 10, λ 1 (ViT: α 5; PinsFace: α 50, λ 0.1).
Deviations: none. As in the code of the authors the gradient is that of a batch's mean loss, not of single samples: set batch_size 1 for the diagonal
of the Fisher information that the paper writes. With α = ∞ nothing changes. On a random forget set from the same distribution as the rest it changes
next to nothing.
"""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import union
from unlearned.engine.engine import Engine
from unlearned.engine.gradients import mean_squared_gradients
from unlearned.engine.loop import only
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.settings import Pattern


def dampen(weights: Tensor, importance: Tensor, forget_importance: Tensor, alpha: float, dampening: float) -> Tensor:
    """θ · min(λ I_D / I_f, 1) where I_f > α I_D, else θ.

    Args:
        weights: θ, any shape.
        importance: I_D ≥ 0, the same shape.
        forget_importance: I_f ≥ 0, the same shape.
        alpha: α > 0, may be infinite.
        dampening: λ > 0.

    Returns:
        New weights of that shape.
    """
    if alpha == float("inf"):  # 0 · ∞ would select weights that matter for nothing
        return weights.clone()
    selected = forget_importance > alpha * importance
    factor = (dampening * importance / forget_importance).clamp(max=1)
    return torch.where(selected, weights * factor, weights)


@methods.register("ssd")
class SSD(Method):
    """Dampen in closed form."""

    name: ClassVar[str] = "ssd"
    alpha: float = Field(
        10, gt=0, allow_inf_nan=True, description="Selection: a weight is dampened if it matters alpha times more for the forget set than for all data."
    )
    dampening: float = Field(1, gt=0, description="λ: how weakly selected weights are dampened.")
    batch_size: int = Field(256, ge=1, description="Samples whose gradients are averaged before squaring.")
    parameters: Pattern = Optimisation.field("parameters", ".*")

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        model = copy.deepcopy(problem.original.model).eval()
        with only(model, self.parameters):
            # Shuffled, because a batch's gradient is averaged before it is squared: batches of one class would count for more.
            seed = derive_seed(engine.seed, self.name)
            forget = mean_squared_gradients(engine, model, problem.forget.shuffled(seed), self.batch_size)
            everything = union(problem.forget, problem.retain).shuffled(seed)
            importances = mean_squared_gradients(engine, model, everything, self.batch_size)
            with torch.no_grad():
                for name, weights in model.named_parameters():
                    if name in forget:
                        weights.copy_(dampen(weights, importances[name], forget[name], self.alpha, self.dampening))
        return model
