"""Bad teacher: the student follows a teacher that knows nothing on the forget set, and the original on a part of the retain set.

Paper: Chundawat et al. 2023 (AAAI), "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks using an Incompetent Teacher", arXiv 2205.08096; in the
form of if-loops/selective-synaptic-dampening.
Formula: descend mean over a batch of KL(softmax(t / T) ‖ softmax(s / T)), s the student's logits, t those of the bad teacher for a forget sample and of the
original for a retain sample. The bad teacher is the same architecture with new random weights; both teachers are frozen and in eval mode. An epoch is one
pass over D_f and a random share of D_r, drawn once, mixed together. Defaults of the authors (of that code): share 0.3, T 1, Adam, lr 1e-4, no weight decay,
batch 256, 1 epoch.
Deviations: the divergence is summed over classes, where that code averages over them: a factor K that Adam does not notice.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn, no_grad

from unlearned.data.samples import Samples
from unlearned.engine.batches import mixed
from unlearned.engine.engine import Engine, frozen
from unlearned.engine.loop import Pass, Plan
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


def teaching_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over samples of KL(softmax(teacher / T) ‖ softmax(student / T)), without the factor T² of distillation.

    Args:
        student: logits, (B, K).
        teacher: logits, (B, K).
        temperature: T > 0.

    Returns:
        A scalar ≥ 0.
    """
    log_student, log_teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


@methods.register("bad-teacher")
class BadTeacher(ObjectiveMethod):
    """Follow an incompetent teacher on forget and the original on retain."""

    name: ClassVar[str] = "bad-teacher"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adam")
    lr: float = Optimisation.field("lr", 1e-4)
    weight_decay: float = Optimisation.field("weight_decay", 0.0)
    epochs: int = Optimisation.field("epochs", 1)
    retain_share: float = Field(0.3, gt=0, le=1, description="Share of the retain set that is used, drawn once; at least one sample.")
    temperature: float = Field(1.0, gt=0, description="Temperature T of the divergence.")

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        shuffled = problem.retain.shuffled(derive_seed(engine.seed, self.name, "retain"))
        return super().sets(problem, engine) | {"retain": shuffled.subset(range(max(1, int(self.retain_share * len(shuffled)))))}

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        outputs = engine.task.outputs
        original = self.original_outputs(problem, engine)
        with seeded(derive_seed(engine.seed, self.name, "teacher")):
            bad = frozen(engine.task.fresh(problem.original).model).to(engine.device)

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            taught = []
            if forget:
                with no_grad():
                    taught.append(outputs(bad, forget))
            if retain:
                taught.append(original(model, retain))
            return teaching_loss(outputs(model, mixed(forget, retain)), torch.cat(taught), self.temperature)

        return Plan([Pass("union", loss)] * self.epochs)
