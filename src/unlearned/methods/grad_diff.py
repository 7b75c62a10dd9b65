"""Gradient difference (GradDiff): ascend on the forget set, descend on the retain set.

Paper: Liu, Liu, Stone 2022, arXiv 2203.12817; in this form in TOFU, Maini et al. 2024, arXiv 2401.06121.
Formula: L = −γ · mean NLL(D_f) + α · R, R the mean NLL on D_r or KL(original ‖ model) on its answer tokens. NLL is a mean over the answer's tokens.
Defaults: γ 1, α 1, NLL; AdamW, lr 1e-5, 10 epochs (open-unlearning).
Deviations: the divergence is taken on answer tokens alone, not on prompts and padding as in the common implementation.
"""

from __future__ import annotations

from typing import ClassVar

from unlearned.engine.engine import Engine
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain
from unlearned.methods._method import Measure
from unlearned.problem import Problem


@methods.register("grad-diff")
class GradDiff(ForgetRetain):
    """Ascend on forget, descend on retain."""

    name: ClassVar[str] = "grad-diff"

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        del problem
        return lambda model, batch: -engine.task.losses(model, batch).mean()
