"""SimNPO: negative preference without a reference model, on length-normalised likelihoods.

Paper: Fan et al. 2024, "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning", arXiv 2410.07163.
Formula: L_f = mean of −(2/β) log σ(β (nll/|y| − δ)), nll the answer's negative log-likelihood and |y| its number of tokens; L = γ L_f + α R.
Defaults: β 4.5, δ 0, γ 0.125, α 1; AdamW, lr 1e-5, 10 epochs (open-unlearning).
Deviations: γ here is the weight of the forget term. The margin δ stands inside β (…), as in open-unlearning; the paper has a margin γ outside: γ = β δ.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain, text_task
from unlearned.methods._method import Measure
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def simnpo_loss(nll: Tensor, lengths: Tensor, beta: float, delta: float) -> Tensor:
    """−(2/β) log σ(β (nll/|y| − δ)) of each answer, (B,).

    Args:
        nll: summed over the answer's tokens, (B,).
        lengths: |y|, (B,).
        beta: β > 0.
        delta: margin δ.
    """
    return -2 / beta * F.logsigmoid(beta * (nll / lengths - delta))


@methods.register("simnpo")
class SimNPO(ForgetRetain):
    """Push down length-normalised likelihoods of the forget set, the less the lower they are."""

    name: ClassVar[str] = "simnpo"
    beta: float = Field(4.5, gt=0, description="β: how soon the pressure falls once an answer has become unlikely.")
    delta: float = Field(0.0, ge=0, description="Margin δ.")
    gamma: float = ForgetRetain.field("gamma", 0.125)

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        del problem
        task = text_task(engine)

        def term(model: nn.Module, batch: Batch) -> Tensor:
            return simnpo_loss(*task.answer_nll(model, batch), self.beta, self.delta).mean()

        return term
