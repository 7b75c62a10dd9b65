"""Reconstruction of ERU: a preference loss whose reference is elastic, and which has to hold also when the model's refusal feature is removed.

Paper: Sui, Ren, Yang, Jin, Xu, Liu, Wang 2025, "Elastic Robust Unlearning of Specific Knowledge in Large Language Models" (NeurIPS). **The paper's body was
not available to us.** This is built from its abstract, its public reviews and the early repository of its authors, which holds no loss of ERU. Every formula
below is our reconstruction; no number here is the paper's.
Formula: ℓ = log π_θ(y|x) / |y|, ℓ_ref that of the original, sg no gradient. L_f = mean over D_f of −(2/β) log σ(β z), with
`elastic: implicit`: z = −ℓ − δ − ε sg(ℓ_ref − ℓ);  `elastic: geometric`: z = −(ℓ − ε ℓ_ref) − (1 − ε) δ.
L = γ · mean over D_f of max(L_f(h), L_f(h − r̂ r̂ᵀh)) + α R, with h what a block reads, r = mean h(forget prompts) − mean h(retain prompts) at the last prompt
token, r̂ = r / ‖r‖, R the retain term on the clean model. `inner` and `solver` give the other inner problems; `elasticity: 0` and `inner: none` switch
either half off. With elasticity 0 both forms are SimNPO; with 1 the geometric one is NPO on ℓ, the implicit one is not.
Evidence: *Stated by abstract and reviews*: two faults of preference losses (a rigid reference, no robustness), an elastic reward, refusal-feature ablation, a
max–min objective. *Inferred*: that the reference is α-DPO's implicit one, π̂ ∝ U (π_θ/π_ref)^ε (Wu et al. 2024, arXiv 2410.10148), from a figure of the early
repository and from its code, which is α-DPO's unchanged; the geometric form, π̂ ∝ U^(1−ε) π_ref^ε, from a reviewer's words. *From other work*: directions from
32 + 32 prompts, measured anew every 4 steps, the last 75 % of the blocks (a re-implementation of ReFAT, Yu et al. 2024; it attacks half of a batch); z-scores
with means over steps, factor 0.9 (α-DPO). *Ours*: forget prompts are the harmful ones, retain prompts the harmless ones; all tokens lose the feature
(`positions: last` is that re-implementation's choice); the larger loss for each sample; PGD.
Defaults: β 2.5 (α-DPO's, for likelihoods per token), ε 0.2, δ 0, γ 1, α 1: ours. AdamW, lr 1e-5, 10 epochs, as for its neighbours here.
Deviations: unknown, as the paper is. Where it is open there is a setting.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Step
from unlearned.methods import methods
from unlearned.methods._forget_retain import text_task
from unlearned.methods._robust import ForgetLosses, Robust
from unlearned.problem import Problem
from unlearned.tasks._task import Batch

LEAST_SPREAD = 0.01
"""Z-scores divide by no less: samples of small batches may have made nearly equal progress."""


def implicit_logits(now: Tensor, elasticity: float, margin: float, progress: Tensor) -> Tensor:
    """Z = −ℓ − δ − ε M, (B,).

    Args:
        now: ℓ of the model that learns, (B,).
        elasticity: ε ≥ 0.
        margin: δ.
        progress: M = ℓ_ref − ℓ or its z-score, (B,); no gradient goes through it.
    """
    return -now - margin - elasticity * progress.detach()


def geometric_logits(now: Tensor, before: Tensor, elasticity: float, margin: float) -> Tensor:
    """Z = −(ℓ − ε ℓ_ref) − (1 − ε) δ, (B,).

    Args:
        now: ℓ of the model that learns, (B,).
        before: ℓ_ref of the original, (B,).
        elasticity: ε.
        margin: δ.
    """
    return -(now - elasticity * before) - (1 - elasticity) * margin


def elastic_loss(logits: Tensor, beta: float) -> Tensor:
    """−(2/β) log σ(β z), (B,); its gradient with respect to ℓ is 2 σ(−β z)."""
    return -2 / beta * F.logsigmoid(beta * logits)


@methods.register("eru")
class ERU(Robust):
    """Forget relative to an elastic reference, also without the refusal feature (a reconstruction)."""

    name: ClassVar[str] = "eru"
    elastic: Literal["implicit", "geometric"] = Field("implicit", description="Form of the elastic reference.")
    elasticity: float = Field(0.2, ge=0, le=1, description="ε: how much the reference counts; 0: none, as in SimNPO.")
    beta: float = Field(2.5, gt=0, description="β: how soon the pressure falls once an answer has become unlikely; 0.1 suits `per_token: false`.")
    margin: float = Field(0.0, ge=0, description="Margin δ.")
    per_token: bool = Field(True, description="Likelihoods are means over the answer's tokens; else sums.")
    zscore: bool = Field(False, description="Form implicit: progress M as a z-score, with means over steps.")
    averaging: float = Field(0.9, ge=0, lt=1, description="Weight of the past in those means.")

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        before = engine.evaluate(problem.original.model, problem.forget, self._likelihoods(engine)).float()
        return super().sets(problem, engine) | {"forget": problem.forget.attach("original_log_likelihood", before)}

    def forget_losses(self, engine: Engine, memory: dict[str, Tensor]) -> ForgetLosses:
        return _Elastic(self, engine, memory)

    def _likelihoods(self, engine: Engine) -> _Likelihoods:
        return _Likelihoods(engine, self.per_token)


class _Likelihoods:
    """ℓ of model and batch, (B,)."""

    def __init__(self, engine: Engine, per_token: bool) -> None:
        self._task, self._per_token = text_task(engine), per_token

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        nll, lengths = self._task.answer_nll(model, batch)
        return -nll / lengths if self._per_token else -nll


class _Elastic(ForgetLosses):
    def __init__(self, settings: ERU, engine: Engine, memory: dict[str, Tensor]) -> None:
        self._settings, self._engine, self._memory = settings, engine, memory
        self._likelihoods = _Likelihoods(engine, settings.per_token)
        self._new_step = False

    def begin(self, now: Step) -> None:
        del now
        self._new_step = True

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        how = self._settings
        now, before = self._likelihoods(model, batch), batch["original_log_likelihood"]
        if how.elastic == "geometric":
            return elastic_loss(geometric_logits(now, before, how.elasticity, how.margin), how.beta)
        progress = (before - now).detach()
        return elastic_loss(implicit_logits(now, how.elasticity, how.margin, self._scored(progress) if how.zscore else progress), how.beta)

    def _scored(self, progress: Tensor) -> Tensor:
        """(M − mean) / spread, both averaged over the steps so far; the first look of each step is what enters them."""
        kept = self._memory.get("progress", torch.tensor([0.0, 1.0])).to(progress)
        if self._new_step:
            self._new_step = False
            everywhere = self._engine.accelerator.gather(progress)
            assert isinstance(everywhere, Tensor)
            here = torch.stack([everywhere.mean(), everywhere.std(correction=0)])
            kept = self._settings.averaging * kept + (1 - self._settings.averaging) * here
            self._memory["progress"] = kept
        scored: Tensor = (progress - kept[0]) / kept[1].clamp(min=LEAST_SPREAD)
        return scored
