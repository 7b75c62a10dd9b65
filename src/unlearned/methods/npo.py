"""Negative preference optimisation (NPO): gradient ascent on the forget set that fades as a sample becomes less likely than it was to the original.

Paper: Zhang et al. 2024, "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning", arXiv 2404.05868; for classifiers Block et
al. 2025, arXiv 2505.22601.
Formula: L_f = (2/β) · mean over D_f of log(1 + (π_θ(y|x) / π_θ*(y|x))^β), θ* the original model; L = γ L_f + α R, R the retain term. log π is that of the
whole answer: −CE for a classifier, the sum over an answer's tokens for a text. At θ = θ* the gradient of L_f is that of the mean log π; for β → 0 it stays
so.
Defaults: β 0.1, γ 1, α 0: without the retain set, as the formula stands in both papers. AdamW, lr 1e-5, batch 32, 10 epochs (open-unlearning, for language
models, with α 1). Block et al. tune β on {0.01, 0.1, 0.5, 0.9} and lr on {5e-3, 1e-3, 5e-4, 1e-4} for classifiers, with weight decay 0.01 and batch 256.
Deviations: log π_θ* is computed once for each forget sample, in eval mode: there is no second model.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.errors import Fault, raise_faults
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain
from unlearned.methods._method import Measure
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def npo_loss(log_likelihoods: Tensor, reference: Tensor, beta: float) -> Tensor:
    """(2/β) log(1 + exp(β (log π_θ − log π_θ*))) of each sample, (B,).

    Args:
        log_likelihoods: log π_θ(y|x) of the model that learns, (B,).
        reference: log π_θ*(y|x) of the original, (B,).
        beta: β > 0.
    """
    return 2 / beta * F.softplus(beta * (log_likelihoods - reference))


@methods.register("npo")
class NPO(ForgetRetain):
    """Make forget samples less likely than they were, by as much as they still are likely."""

    name: ClassVar[str] = "npo"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification", "text-generation"})
    beta: float = Field(0.1, gt=0, description="β: the larger, the sooner a sample that has become unlikely is left alone.")
    alpha: float = ForgetRetain.field("alpha", 0.0)

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """A divergence between tokens where there are none."""
        found = super().faults(problem, engine)
        if self.alpha and self.retain_loss == "kl" and engine.task.name != "text-generation":
            found.append(Fault("method.retain_loss", f"kl is a divergence between tokens, which {engine.task.name} has none of.", "Use nll."))
        return found

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        reference = engine.evaluate(problem.original.model, problem.forget, engine.task.log_likelihoods).float()
        return super().sets(problem, engine) | {"forget": problem.forget.attach("original_log_likelihood", reference)}

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        del problem
        log_likelihoods = engine.task.log_likelihoods

        def term(model: nn.Module, batch: Batch) -> Tensor:
            return npo_loss(log_likelihoods(model, batch), batch["original_log_likelihood"], self.beta).mean()

        return term

    def retain_term(self, problem: Problem, engine: Engine) -> Measure:
        raise_faults(self.faults(problem, engine))
        return super().retain_term(problem, engine)
