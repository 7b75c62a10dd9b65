"""Task-vector negation: learn the forget set still better, then go the opposite way.

Paper: Ilharco et al. 2023, "Editing Models with Task Arithmetic", arXiv 2212.04089, section 3.
Formula: θ_f = θ after fine-tuning on D_f by the task's loss; the result is θ − λ (θ_f − θ). The retain set is not used.
Defaults: λ is chosen on validation data in the paper; here 1. The optimisation is that of fine-tuning.
Deviations: none.
"""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan, fit
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


@methods.register("task-vector")
class TaskVector(Method, Optimisation):
    """Subtract what fine-tuning on the forget set adds."""

    name: ClassVar[str] = "task-vector"
    scale: float = Field(1.0, ge=0, description="λ: how far to go the opposite way.")

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return engine.task.losses(model, forget).mean()

        original = problem.original.model
        tuned = copy.deepcopy(original)
        plan = Plan([Pass("forget", loss)] * self.epochs)
        fit(engine, tuned, plan, {"forget": problem.forget}, self, title=self.name, seed=engine.seed, checkpoint=engine.checkpoint("unlearn"))
        result = copy.deepcopy(original).eval()
        with torch.no_grad():
            for parameter, start, end in zip(result.parameters(), original.parameters(), tuned.parameters(), strict=True):
                parameter.copy_(start - self.scale * (end - start))
        return result
