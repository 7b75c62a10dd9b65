"""Gradient ascent on the forget set (GA).

Paper: Thudi et al. 2022, arXiv 2109.13398 (the idea); settings of Zhao et al. 2024 (RUM), arXiv 2406.01257.
Formula: maximise mean over D_f of the task's loss, from the original weights. The retain set is not used.
Defaults of the authors: 5 epochs, lr 1e-4; SGD, momentum 0.9, weight decay 5e-4, batch 256.
Deviations: none. The objective has no minimum: too many steps or too large a learning rate destroy the model; the loop stops when numbers lose meaning.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


@methods.register("gradient-ascent")
class GradientAscent(ObjectiveMethod):
    """Ascend the loss on the forget set."""

    name: ClassVar[str] = "gradient-ascent"
    epochs: int = Optimisation.field("epochs", 5)
    lr: float = Optimisation.field("lr", 1e-4)

    def plan(self, problem: Problem, engine: Engine) -> Plan:  # noqa: ARG002
        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return -engine.task.losses(model, forget).mean()

        return Plan([Pass("forget", loss)] * self.epochs)
