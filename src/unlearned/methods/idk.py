"""IDK: learn to say that one does not know.

Paper: Maini et al. 2024, TOFU, arXiv 2401.06121 (the answers); as plain likelihood in Dorna et al. 2025, arXiv 2506.12618 (IdkNLL).
Formula: L = γ · mean NLL(a line such as "I don't know." after each prompt of D_f) + α R.
Defaults: γ 1, α 1; AdamW, lr 1e-5, 10 epochs (open-unlearning).
Deviations: sixteen lines of our own. Each sample has one of them for the whole run.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain
from unlearned.methods._method import Measure
from unlearned.methods.dpo import with_refusals
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import with_answers


@methods.register("idk")
class Idk(ForgetRetain):
    """Descend on refusals in the place of answers."""

    name: ClassVar[str] = "idk"

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        return {"forget": with_refusals(problem, engine), "retain": problem.retain}

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        del problem

        def term(model: nn.Module, batch: Batch) -> Tensor:
            return engine.task.losses(model, with_answers(batch, batch["alternative"])).mean()

        return term
