"""Boundary shrink: each forget sample learns the class on the other side of the nearest decision boundary.

Paper: Chen et al. 2023 (CVPR), "Boundary Unlearning", arXiv 2303.11570; in the form of OPTML-Group/Unlearn-Saliency.
Formula: x' = x + ε sign(∇_x CE(y, f_θ*(x))), one step of the fast gradient sign method at the original model; ỹ = argmax f_θ*(x'). Descend mean over D_f of
CE(ỹ, p_θ(x)). The retain set is not used.
Defaults: ε 0.1 for pixels in [0, 1] (that code calls it fixed in the paper), SGD, momentum 0.9, weight decay 5e-4, batch 256, 10 epochs. The learning rate of
the paper is not known to us; 1e-5 is commonly cited.
Deviations: ỹ is the largest logit at x' among the other classes (`only_wrong`): where one step does not leave the class, that code teaches the true label,
the opposite of forgetting. That code clamps x' to [0, 1] and rounds it to 1/255; pixels of a model with a processor have another range, so here they are
clamped only to a given `pixel_range`, and never rounded. ỹ is computed once for each sample, which changes nothing, and in float64.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field, model_validator
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch, finest


def sign_step(pixels: Tensor, gradient: Tensor, epsilon: float, pixel_range: tuple[float, float] | None = None) -> Tensor:
    """X + ε sign(g), clamped to `pixel_range`; all shaped like x."""
    moved = pixels + epsilon * gradient.sign()
    return moved if pixel_range is None else moved.clamp(*pixel_range)


def target_classes(logits: Tensor, labels: Tensor, only_wrong: bool) -> Tensor:
    """The class with the largest logit, (B,), among all or among all but each sample's own.

    Args:
        logits: at the moved samples, (B, K).
        labels: true classes, (B,).
        only_wrong: leave out the true class.
    """
    if only_wrong:
        logits = logits.masked_fill(F.one_hot(labels, logits.shape[1]).bool(), -torch.inf)
    return logits.argmax(dim=1)


@methods.register("boundary-shrink")
class BoundaryShrink(ObjectiveMethod):
    """Learn the nearest wrong class."""

    name: ClassVar[str] = "boundary-shrink"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})
    lr: float = Optimisation.field("lr", 1e-5)
    epsilon: float = Field(0.1, gt=0, description="Step ε on each pixel, in units of the pixels that the model is given.")
    pixel_range: tuple[float, float] | None = Field(None, description="Moved pixels are clamped to this range, for example [0, 1]; None: they are not.")
    only_wrong: bool = Field(True, description="Never teach the true class, also where the step does not leave it.")

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        if self.pixel_range is not None and not self.pixel_range[0] < self.pixel_range[1]:
            raise ValueError(f"of pixel_range {self.pixel_range[0]:g} is not below {self.pixel_range[1]:g}; give the lowest pixel, then the highest")
        return self

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        targets = engine.evaluate(problem.original.model, problem.forget, lambda model, batch: self._targets(engine, model, batch))
        return super().sets(problem, engine) | {"forget": problem.forget.attach("nearest", targets.long())}

    def _targets(self, engine: Engine, model: nn.Module, batch: Batch) -> Tensor:
        pixels = batch["pixel_values"].detach().clone().requires_grad_()
        with torch.enable_grad():
            # In float32 the gradient of a confident answer loses the term p − 1 of its own class.
            logits = engine.task.outputs(model, batch | {"pixel_values": pixels})
            loss = F.cross_entropy(logits.to(finest(logits.device)), batch["labels"], reduction="sum")
            [gradient] = torch.autograd.grad(loss, [pixels])
        engine.meter.count(len(pixels))
        moved = sign_step(pixels.detach(), gradient, self.epsilon, self.pixel_range)
        return target_classes(engine.task.outputs(model, batch | {"pixel_values": moved}), batch["labels"], self.only_wrong)

    def plan(self, problem: Problem, engine: Engine) -> Plan:  # noqa: ARG002
        task = engine.task

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return task.losses(model, forget | {"labels": forget["nearest"]}).mean()

        return Plan([Pass("forget", loss)] * self.epochs)
