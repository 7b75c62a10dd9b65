"""DELETE: on the forget set, teach the original's own answer without the true class. The retain set is not used.

Paper: "DELETE" (CVPR 2025), arXiv 2503.23751.
Formula: the teacher is the frozen original with the logit of each sample's true class at −∞. Descend mean over D_f of KL(softmax(teacher) ‖ softmax(student)).
It is TRW (see there) with β = 0 and without its retain term.
Defaults: the learning rate of the paper is not known to us; here that of a public port: SGD, lr 1e-3, momentum 0.9, batch 128, 20 epochs.
Deviations: −∞ in the place of −1e10.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan, Step
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.methods.trw import reweighted, target_loss
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def without_true_class(logits: Tensor, labels: Tensor) -> Tensor:
    """The distribution softmax(z) among all classes but each sample's own, (B, K); logits (B, K), labels (B,)."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return reweighted(logits, torch.zeros_like(logits), own, 0.0)


@methods.register("delete")
class Delete(ObjectiveMethod):
    """Learn the original's answer with the true class masked."""

    name: ClassVar[str] = "delete"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})
    epochs: int = Optimisation.field("epochs", 20)
    lr: float = Optimisation.field("lr", 1e-3)
    batch_size: int = Optimisation.field("batch_size", 128)
    freeze_batch_norm: bool = Field(False, description="Batch normalisation keeps the statistics of the original (the paper does so on Tiny-ImageNet).")

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        task = engine.task
        teacher = self.original_outputs(problem, engine)

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            target = without_true_class(teacher(model, forget), forget["labels"])
            entropy: Tensor = torch.special.entr(target).sum(dim=1)
            return (target_loss(task.outputs(model, forget), target) - entropy).mean()  # the divergence: 0 when the student has learned

        return Plan([Pass("forget", loss)] * self.epochs, before_step=_freeze_batch_norm if self.freeze_batch_norm else None)


def _freeze_batch_norm(model: nn.Module, forget: Batch, retain: Batch, step: Step) -> None:
    del forget, retain, step
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
