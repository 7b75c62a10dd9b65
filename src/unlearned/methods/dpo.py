"""DPO: prefer saying that one does not know over the answer that is to be forgotten.

Paper: Rafailov et al. 2023, arXiv 2305.18290; for unlearning in Zhang et al. 2024 (NPO), arXiv 2404.05868, and TOFU, Maini et al. 2024, arXiv 2401.06121.
Formula: L_f = mean of −(2/β) log σ(β [(ref − θ)(alternative) − (ref − θ)(answer)]), θ and ref the summed negative log-likelihoods of model and original; L =
γ L_f + α R.
Defaults: β 0.1, γ 1, α 1; AdamW, lr 1e-5, 10 epochs (open-unlearning).
Deviations: the factor 2/β is that of open-unlearning, not of Rafailov et al. Sixteen refusals of our own, one for each sample. The original's likelihoods are
computed once, before the training: there is no second model.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain, padded, text_task
from unlearned.methods._method import Measure
from unlearned.problem import Problem
from unlearned.tasks._refusals import REFUSALS
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import with_answers


def dpo_loss(preferred: Tensor, preferred_reference: Tensor, rejected: Tensor, rejected_reference: Tensor, beta: float) -> Tensor:
    """−(2/β) log σ(β [(nll_ref − nll)(preferred) − (nll_ref − nll)(rejected)]) of each pair; all (B,)."""
    return -2 / beta * F.logsigmoid(beta * ((preferred_reference - preferred) - (rejected_reference - rejected)))


def with_refusals(problem: Problem, engine: Engine) -> Samples:
    """The forget set, each sample with a refusal as `alternative` (A,), −1 behind its end."""
    lines = padded(text_task(engine).answer_ids(REFUSALS, problem.original))
    chosen = np.random.default_rng(derive_seed(engine.seed, "refusals")).integers(0, len(REFUSALS), len(problem.forget))
    return problem.forget.attach("alternative", lines[chosen])


@methods.register("dpo")
class DPO(ForgetRetain):
    """Prefer a refusal over the answer."""

    name: ClassVar[str] = "dpo"
    beta: float = Field(0.1, gt=0, description="β: how far the model may go from the original.")

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        forget, task = with_refusals(problem, engine), text_task(engine)

        def answer(model: nn.Module, batch: Batch) -> Tensor:
            return task.answer_nll(model, batch)[0]

        def alternative(model: nn.Module, batch: Batch) -> Tensor:
            return task.answer_nll(model, with_answers(batch, batch["alternative"]))[0]

        for name, measure in (("reference_nll", answer), ("alternative_reference_nll", alternative)):
            forget = forget.attach(name, engine.evaluate(problem.original.model, forget, measure).float())
        return {"forget": forget, "retain": problem.retain}

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        del problem
        task = text_task(engine)

        def term(model: nn.Module, batch: Batch) -> Tensor:
            rejected, _ = task.answer_nll(model, batch)
            preferred, _ = task.answer_nll(model, with_answers(batch, batch["alternative"]))
            return dpo_loss(preferred, batch["alternative_reference_nll"], rejected, batch["reference_nll"], self.beta).mean()

        return term
