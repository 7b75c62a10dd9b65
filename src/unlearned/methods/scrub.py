"""SCRUB: a student that disobeys its teacher on the forget set and obeys it on the retain set.

Paper: Kurmanji et al. 2023, "Towards Unbounded Machine Unlearning", arXiv 2302.09880, equations 1 to 3; code of the authors: meghdadk/SCRUB.
Formula: the teacher is a frozen copy of the original. Epoch e = 1, 2, ...: if e ≤ msteps, a max pass over D_f that ascends KL_T(teacher ‖ student); then a min
pass over D_r that descends γ · CE + α · KL_T(teacher ‖ student). KL_T is taken between softmax(·/T) and multiplied by T².
Defaults of the authors (large scale): 3 epochs, msteps 2, lr 5e-4, γ 0.99, α 0.001, T 4, SGD with weight decay 5e-4, learning rate × 0.1 after epochs
3, 5 and 9, forget batch 32. Their small-scale setting: optimizer adam, 10 epochs, msteps 3, γ 1, α 0.5, T 2.
Deviations: batch 256 on the retain set, as everywhere here. The rewinding of SCRUB+R is not included. One optimiser serves both kinds of pass, as in
the code of the authors.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · mean over samples of KL(softmax(teacher / T) ‖ softmax(student / T)).

    Args:
        student: logits, (B, C).
        teacher: logits, (B, C).
        temperature: T > 0.

    Returns:
        A scalar ≥ 0.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


@methods.register("scrub")
class Scrub(ObjectiveMethod):
    """Alternate max epochs on forget and min epochs on retain, against a frozen teacher."""

    name: ClassVar[str] = "scrub"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})
    epochs: int = Optimisation.field("epochs", 3)
    lr: float = Optimisation.field("lr", 5e-4)
    max_epochs: int = Field(2, ge=0, description="msteps: so many first epochs begin with a max pass over the forget set.")
    gamma: float = Field(0.99, ge=0, description="Weight of the cross-entropy on the retain set.")
    alpha: float = Field(0.001, ge=0, description="Weight of the divergence from the teacher on the retain set.")
    temperature: float = Field(4.0, gt=0, description="Temperature T of the divergence.")
    forget_batch_size: int = Field(32, ge=1, description="Samples per step of a max pass.")
    lr_decay_epochs: tuple[int, ...] = Field((3, 5, 9), description="After each of these epochs the learning rate falls to a tenth.")

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        task = engine.task
        teacher = self.original_outputs(problem, engine)

        def maximise(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return -distillation_loss(task.outputs(model, forget), teacher(model, forget), self.temperature)

        def minimise(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            student = task.outputs(model, retain)
            divergence = distillation_loss(student, teacher(model, retain), self.temperature)
            return self.gamma * task.losses_from(student, retain).mean() + self.alpha * divergence

        passes, factors = [], []
        for epoch in range(1, self.epochs + 1):
            rounds = [Pass("forget", maximise)] if epoch <= self.max_epochs else []
            rounds.append(Pass("retain", minimise))
            passes += rounds
            factors += [0.1 ** sum(epoch > after for after in self.lr_decay_epochs)] * len(rounds)
        return Plan(passes, forget_batch_size=self.forget_batch_size, lr_factor=factors.__getitem__)
