"""Weighted gradient ascent (WGA): ascend less on tokens that are unlikely already.

Paper: Wang et al. 2025, "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond", arXiv 2502.19301.
Formula: L_f = −mean over answer tokens of p^β · (−log p), p the token's probability, held constant in the weight; L = γ L_f + α R.
Defaults: β 1; lr 1e-5, 5 epochs (open-unlearning).
Deviations: the mean is taken over the tokens of each answer, then over answers, as in all losses here. With β = 0 it is gradient difference.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain
from unlearned.methods._method import Measure
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import answer_mask


def wga_loss(log_p: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Mean over marked tokens of p^β log p of each answer, (B,), with no gradient through p^β.

    Args:
        log_p: (B, T).
        mask: (B, T), true where a token counts.
        beta: β ≥ 0.
    """
    weighted = (beta * log_p).exp().detach() * log_p * mask
    return weighted.sum(dim=1) / mask.sum(dim=1)


@methods.register("wga")
class WGA(ForgetRetain):
    """Ascend with each token's own probability as its weight."""

    name: ClassVar[str] = "wga"
    beta: float = Field(1.0, ge=0, description="Power β of the probability.")
    epochs: int = Optimisation.field("epochs", 5)

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        del problem

        def term(model: nn.Module, batch: Batch) -> Tensor:
            return wga_loss(engine.task.outputs(model, batch), answer_mask(batch), self.beta).mean()

        return term
