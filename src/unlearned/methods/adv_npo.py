"""AdvNPO: NPO that has to hold also when the activations of one block are perturbed in the worst way within a ball.

Paper: none of its own that was available to us; the baseline of that name in Sui et al. 2025 (ERU), of which only its name and the figure of a perturbation at
one layer are known. The loss is that of Zhang et al. 2024 (NPO), arXiv 2404.05868.
Formula: L = γ · mean over D_f of max over ‖δ_t‖ ≤ ρ ‖h_t‖ of (2/β) log(1 + (π_θ(y|x; h + δ) / π_θ*(y|x))^β) + α R, h_t what the block reads at token t, δ by
projected gradient ascent, R the retain term on the clean model.
Defaults: β 0.1 (NPO), γ 1, α 1; ρ 0.1, 4 steps of length 2.5 ρ / 4, the middle block, all tokens: ours.
Deviations: unknown, as the paper is. The larger of the clean and the attacked loss counts for each sample. With `solver: refusal-feature` it is NPO under
refusal-feature ablation.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.methods import methods
from unlearned.methods._robust import ForgetLosses, Robust
from unlearned.methods.npo import npo_loss
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


@methods.register("adv-npo")
class AdvNPO(Robust):
    """NPO under the worst perturbation of one block's input."""

    name: ClassVar[str] = "adv-npo"
    beta: float = Field(0.1, gt=0, description="β: the larger, the sooner a sample that has become unlikely is left alone.")
    solver: Literal["refusal-feature", "pgd"] = Robust.field("solver", "pgd")

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        reference = engine.evaluate(problem.original.model, problem.forget, engine.task.log_likelihoods).float()
        return super().sets(problem, engine) | {"forget": problem.forget.attach("original_log_likelihood", reference)}

    def forget_losses(self, engine: Engine, memory: dict[str, Tensor]) -> ForgetLosses:
        del memory
        return _Npo(engine, self.beta)


class _Npo(ForgetLosses):
    def __init__(self, engine: Engine, beta: float) -> None:
        self._log_likelihoods, self._beta = engine.task.log_likelihoods, beta

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        return npo_loss(self._log_likelihoods(model, batch), batch["original_log_likelihood"], self._beta)
