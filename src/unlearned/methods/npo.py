"""Negative preference optimisation (NPO): gradient ascent on the forget set that fades as a sample becomes less likely than it was to the original.

Paper: Zhang et al. 2024, "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning", arXiv 2404.05868; for classifiers Block et
al. 2025, arXiv 2505.22601.
Formula: descend (2/β) · mean over D_f of log(1 + (π_θ(y|x) / π_θ*(y|x))^β) + w · mean loss over D_r, θ* the original model, w = 0 without the retain set. log
π is that of the whole answer: −CE for a classifier, the sum over an answer's tokens for a text. At θ = θ* the gradient is that of ascent on log π; for β → 0
it stays so.
Defaults of the authors: β 0.1, w 0. For the rest the defaults of open-unlearning on TOFU: AdamW with weight decay 0.01, lr 1e-5, 10 epochs, batch 32. Block
et al. tune β on {0.01, 0.1, 0.5, 0.9} and lr on {5e-3, 1e-3, 5e-4, 1e-4} for classifiers, batch 256.
Deviations: log π_θ* is computed once for each forget sample, in eval mode. With w > 0 an epoch goes over the forget set with a retain batch beside each
forget batch.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def npo_loss(log_likelihoods: Tensor, reference: Tensor, beta: float) -> Tensor:
    """(2/β) · mean log(1 + exp(β (log π_θ − log π_θ*))), a scalar.

    Args:
        log_likelihoods: log π_θ(y|x) of the model that learns, (B,).
        reference: log π_θ*(y|x) of the original, (B,).
        beta: β > 0.
    """
    return 2 / beta * F.softplus(beta * (log_likelihoods - reference)).mean()


@methods.register("npo")
class NPO(ObjectiveMethod):
    """Make forget samples less likely than they were, by as much as they still are likely."""

    name: ClassVar[str] = "npo"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification", "text-generation"})
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adamw")
    lr: float = Optimisation.field("lr", 1e-5)
    weight_decay: float = Optimisation.field("weight_decay", 0.01)
    batch_size: int = Optimisation.field("batch_size", 32)
    beta: float = Field(0.1, gt=0, description="β: the larger, the sooner a sample that has become unlikely is left alone.")
    retain_weight: float = Field(0.0, ge=0, description="Weight w of the loss on the retain set; 0: it is not used.")

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        reference = engine.evaluate(problem.original.model, problem.forget, engine.task.log_likelihoods).float()
        return super().sets(problem, engine) | {"forget": problem.forget.attach("original_log_likelihood", reference)}

    def plan(self, problem: Problem, engine: Engine) -> Plan:  # noqa: ARG002
        task = engine.task

        def alone(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return npo_loss(task.log_likelihoods(model, forget), forget["original_log_likelihood"], self.beta)

        def both(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            return alone(model, forget, retain) + self.retain_weight * task.losses(model, retain).mean()

        return Plan([Pass("both", both, paced_by="forget") if self.retain_weight > 0 else Pass("forget", alone)] * self.epochs)
