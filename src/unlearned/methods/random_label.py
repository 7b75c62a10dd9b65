"""Random labels (RL): learn the forget set with labels drawn at random, and the retain set with its own.

Paper: the random labelling of Fan et al. 2024 (SalUn), arXiv 2310.12508, in the code of its authors (OPTML-Group/Unlearn-Saliency); the relabelling of Graves
et al. 2021 ("Amnesiac Machine Learning"), arXiv 2010.10981, as in if-loops/selective-synaptic-dampening.
Formula: descend mean CE(ỹ, p_θ(x)) over D_f and mean CE(y, p_θ(x)) over D_r, ỹ uniform over all K classes (`labels` any, the true one among them) or over the
K − 1 others. ỹ is drawn anew each time that a sample is seen, or once for the whole run. An epoch is a pass over D_f, then one over D_r; or one pass over
both sets mixed, the mean taken over the whole batch.
Defaults: RL of Zhao et al. 2024 (RUM), arXiv 2406.01257: any label, drawn anew, 10 epochs, lr 0.1; SGD, momentum 0.9, weight decay 5e-4, batch 256.
Relabelling is labels other, drawn once, order union, optimizer adam, lr 1e-4, 3 epochs, batch 128, weight decay 0.
Deviations: none. With any label, a share 1/K of the forget set is taught its true label at each pass; "random label" means one or the other in different
papers.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.batches import mixed
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch

Labels = Literal["any", "other"]


def random_labels(labels: Tensor, classes: int, among: Labels, generator: torch.Generator | None = None) -> Tensor:
    """One label per sample, uniform over all classes or over all but the sample's own.

    Args:
        labels: true labels in 0..K−1, (B,).
        classes: K; at least 2 for other labels.
        among: `any` class, or `other` than the true one.
        generator: on the CPU; None: torch's global one. So the draw does not depend on the device of the labels.

    Returns:
        (B,), like `labels`.
    """
    if among == "any":
        return torch.randint(classes, labels.shape, generator=generator).to(labels)
    drawn = torch.randint(classes - 1, labels.shape, generator=generator).to(labels)
    return drawn + (drawn >= labels)


@methods.register("random-label")
class RandomLabel(ObjectiveMethod):
    """Learn wrong labels on forget, the right ones on retain."""

    name: ClassVar[str] = "random-label"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})
    lr: float = Optimisation.field("lr", 0.1)
    labels: Labels = Field("any", description="Random labels are drawn among any class, the true one included, or among the others.")
    drawn: Literal["anew", "once"] = Field("anew", description="Labels are drawn anew each time that a sample is seen, or once for the whole run.")
    order: Literal["forget-then-retain", "union"] = Field(
        "forget-then-retain", description="An epoch: a pass over forget and then one over retain, or one over both mixed."
    )

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        sets = super().sets(problem, engine)
        if self.drawn == "anew":
            return sets
        classes = engine.evaluate(problem.original.model, problem.forget.subset([0]), engine.task.outputs).shape[1]
        generator = torch.Generator().manual_seed(derive_seed(engine.seed, "labels"))
        true = torch.tensor(problem.forget.fact("label"))
        return sets | {"forget": problem.forget.attach("drawn", random_labels(true, classes, self.labels, generator))}

    def plan(self, problem: Problem, engine: Engine) -> Plan:  # noqa: ARG002
        task = engine.task

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            outputs = task.outputs(model, mixed(forget, retain))
            parts = [retain["labels"]] if retain else []
            if forget:
                parts.insert(0, forget["drawn"] if "drawn" in forget else random_labels(forget["labels"], outputs.shape[1], self.labels))
            return task.losses_from(outputs, {"labels": torch.cat(parts)}).mean()

        epoch = [Pass("union", loss)] if self.order == "union" else [Pass("forget", loss), Pass("retain", loss)]
        return Plan(epoch * self.epochs)
