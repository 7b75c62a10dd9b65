"""NegGrad+: descend on the retain set and ascend on the forget set, together.

Paper: Kurmanji et al. 2023, "Towards Unbounded Machine Unlearning", arXiv 2302.09880, section 4 (baselines).
Formula: L = α · mean loss(D_r batch) − (1 − α) · mean loss(D_f batch), 0 ≤ α ≤ 1; one pass goes over D_r once and cycles through D_f beside it,
or the other way round with `paced_by` forget.
Defaults of the authors: α is tuned per data set in the paper. Here α 0.95 (Cadet et al. 2024, Deep Unlearn, arXiv 2410.01276), lr 0.01 and 5 epochs
(Zhao et al. 2024, RUM, arXiv 2406.01257); SGD, momentum 0.9, weight decay 5e-4, batch 256.
Deviations: Deep Unlearn adds an L2 pull towards the original weights; the paper does not, nor is it done here.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def neg_grad_plus_loss(forget_losses: Tensor, retain_losses: Tensor, alpha: float) -> Tensor:
    """α · mean(retain) − (1 − α) · mean(forget).

    Args:
        forget_losses: (B_f,).
        retain_losses: (B_r,).
        alpha: weight of the retain set, in [0, 1].

    Returns:
        A scalar.
    """
    return alpha * retain_losses.mean() - (1 - alpha) * forget_losses.mean()


@methods.register("neg-grad-plus")
class NegGradPlus(ObjectiveMethod):
    """Descend on retain, ascend on forget."""

    name: ClassVar[str] = "neg-grad-plus"
    alpha: float = Field(0.95, ge=0, le=1, description="Weight of the retain loss; 1 − alpha is that of the negated forget loss.")
    paced_by: Literal["forget", "retain"] = Field("retain", description="The set that one epoch goes over once; batches of the other go beside it.")
    epochs: int = Optimisation.field("epochs", 5)

    def plan(self, problem: Problem, engine: Engine) -> Plan:  # noqa: ARG002
        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            return neg_grad_plus_loss(engine.task.losses(model, forget), engine.task.losses(model, retain), self.alpha)

        return Plan([Pass("both", loss, paced_by=self.paced_by)] * self.epochs)
