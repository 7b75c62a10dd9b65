"""LLMU: ascend on the forget set, learn unrelated answers to its prompts, and stay near the original elsewhere.

Paper: Yao, Xu, Liu 2023, "Large Language Model Unlearning", arXiv 2310.10683.
Formula: L = ε₁ · (−mean NLL(D_f)) + ε₂ · mean NLL(random answers after the prompts of D_f) + ε₃ · KL(original ‖ model) on answer tokens of D_r.
Defaults: ε are tuned in the paper. Here 0.5, 1 and 1, learning rate 2e-6, with AdamW.
Deviations: γ, which is 1, weighs the first two terms together. A random answer is that of a random retain sample, one for each forget sample. The
divergence is taken on answer tokens alone.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain, padded
from unlearned.methods._method import Measure
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks._texts import IGNORED
from unlearned.tasks.text_generation import with_answers


@methods.register("llmu")
class LLMU(ForgetRetain):
    """Forget, mismatch, and stay."""

    name: ClassVar[str] = "llmu"
    ascent: float = Field(0.5, ge=0, description="ε₁: weight of the ascent on the forget set.")
    mismatch: float = Field(1.0, ge=0, description="ε₂: weight of the unrelated answers.")
    alpha: float = Field(1.0, ge=0, description="ε₃: weight of the divergence from the original on the retain set.")
    retain_loss: Literal["nll", "kl"] = ForgetRetain.field("retain_loss", "kl")
    lr: float = Optimisation.field("lr", 2e-6)

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        retain = problem.retain
        chosen = np.random.default_rng(derive_seed(engine.seed, self.name)).integers(0, len(retain), len(problem.forget)).tolist()
        answers = [retain[i]["labels"][retain[i]["labels"] != IGNORED] for i in chosen]
        return {"forget": problem.forget.attach("alternative", padded(answers)), "retain": retain}

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        del problem

        def term(model: nn.Module, batch: Batch) -> Tensor:
            losses = engine.task.losses
            mismatched = losses(model, with_answers(batch, batch["alternative"])).mean()
            return self.mismatch * mismatched - self.ascent * losses(model, batch).mean()

        return term
