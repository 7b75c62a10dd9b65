"""Retraining from scratch without the forget set: the gold standard that the others are measured against.

Paper: none; exact unlearning by definition.
Formula: θ = argmin mean over D_r of the task's loss, started from new random weights (or from `start`).
Defaults: those of `training` in the recipe are what matters: the training of the original model. Here: SGD, lr 0.01, momentum 0.9,
weight decay 5e-4, batch 256, 10 epochs.
Deviations: none.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from unlearned.engine.engine import Engine
from unlearned.engine.training import Training, train
from unlearned.methods import methods
from unlearned.methods._method import Method
from unlearned.problem import Problem


@methods.register("retrain")
class Retrain(Method, Training):
    """Train a new model on the retain set."""

    name: ClassVar[str] = "retrain"

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        checkpoint = engine.checkpoint("unlearn")
        return train(engine, problem.original, problem.retain, self, engine.seed, title=self.name, checkpoint=checkpoint).model
