"""UNDIAL: self-distillation towards the original's own logits with the true token pushed down.

Paper: Dong et al. 2024, "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models", arXiv 2402.10052.
Formula: L_f = mean over answer tokens of CE(softmax(z − β e_y), p_θ), z the logits of the frozen original and e_y one at the true token; L = γ L_f + α R.
Defaults: β 10, α 0 (the retain set is not used), lr 1e-4, 10 epochs (open-unlearning).
Deviations: only answer tokens count; the common implementation uses the ignored label as an index and averages over prompts and padding, too.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain, text_task
from unlearned.methods._method import Measure
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import answering


def undial_loss(student: Tensor, teacher: Tensor, tokens: Tensor, beta: float) -> Tensor:
    """CE(softmax(teacher − β onehot(token)), softmax(student)) of each token, (N,).

    Args:
        student: logits, (N, V).
        teacher: logits, (N, V).
        tokens: true tokens, (N,).
        beta: β ≥ 0.
    """
    target = (teacher - beta * F.one_hot(tokens, teacher.shape[-1])).softmax(dim=-1)
    return -(target * student.log_softmax(dim=-1)).sum(dim=-1)


@methods.register("undial")
class Undial(ForgetRetain):
    """Distil adjusted logits."""

    name: ClassVar[str] = "undial"
    beta: float = Field(10.0, ge=0, description="β: how far the true token's logit is pushed down.")
    alpha: float = ForgetRetain.field("alpha", 0.0)
    lr: float = Optimisation.field("lr", 1e-4)

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        task = text_task(engine)
        teacher = self.original_outputs(problem, engine, task.token_logits)

        def term(model: nn.Module, batch: Batch) -> Tensor:
            mask, tokens = answering(batch)
            return undial_loss(task.token_logits(model, batch)[mask], teacher(model, batch)[mask], tokens[mask], self.beta).mean()

        return term
