"""SalUn: random labels, learned only by the weights that matter most for the forget set; all others keep their values.

Paper: Fan et al. 2024 (ICLR), "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency", arXiv 2310.12508; code of the authors:
OPTML-Group/Unlearn-Saliency.
Formula: g = |Σ_batches ∇_θ mean CE(D_f batch)| at the original weights θ*, in eval mode. The mask m keeps the `share` of all trained weights with the largest
g, ranked over all layers together. Then random labels (see random-label) with θ ← m ⊙ θ_step + (1 − m) ⊙ θ*: what the mask leaves out has exactly its
original value after every step, whatever momentum or weight decay say.
Defaults of the authors: share 0.5, any label (the true one included), drawn anew; 10 epochs, lr 0.01 (0.013 to forget 10 % of CIFAR-10), SGD, momentum 0.9,
weight decay 5e-4, batch 256. Order: forget-then-retain on CIFAR-10 and SVHN, union on CIFAR-100 and Tiny-ImageNet.
Diffusion models: the same mask from the denoising loss; then descend mean (ε_θ(x_t, c_f) − sg ε_θ(x_t, c'))² + `alpha` · denoising loss on D_r, x_t noisy
forget images, c_f their prompt or class, c' another. Authors: lr 1e-5, alpha 0.5, 5 epochs (Stable Diffusion); Adam, lr 1e-4, 1000 steps of 128, gradients
clipped at 1, c' the next class, alpha 1e-3 times the sum over pixels (DDPM on CIFAR-10: about 3 in means, as here).
Deviations: statistics of batch normalisation are no weights and move. Diffusion: c' is the condition of the retained sample beside each forget sample; masks
rank the parameters that are trained, by default all.
Another method of this name: Block et al. 2025 (arXiv 2505.22601) compare with a "SalUn" of other labels only, whose every step descends CE on a retain batch
plus λ_GA times CE on a forget batch, by AdamW; its masked weights get no gradient but still decay. Numbers of one are not those of the other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.gradients import summed_gradients
from unlearned.engine.loop import Pass, Plan, Step, only
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, collecting
from unlearned.methods import methods
from unlearned.methods._diffusion import diffusion_task, need_conditions
from unlearned.methods._method import ObjectiveMethod
from unlearned.methods._relabelled import relabelled_loss
from unlearned.methods.random_label import RandomLabel
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks.image_generation import ImageGeneration


def saliency_mask(gradients: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """True at the ⌊share · n⌋ entries of largest magnitude among all n entries of all tensors.

    Args:
        gradients: one tensor per parameter.
        share: in [0, 1].

    Returns:
        Boolean tensors of the same names and shapes. Among equal magnitudes at the limit, earlier entries are preferred.
    """
    magnitudes = torch.cat([gradient.flatten().abs() for gradient in gradients.values()])
    kept = torch.zeros(len(magnitudes), dtype=torch.bool, device=magnitudes.device)
    kept[magnitudes.argsort(descending=True, stable=True)[: int(share * len(magnitudes))]] = True
    parts = torch.split(kept, [gradient.numel() for gradient in gradients.values()])
    return {name: part.view_as(gradient) for (name, gradient), part in zip(gradients.items(), parts, strict=True)}


@methods.register("salun")
class SalUn(RandomLabel):
    """Random labels on the salient weights."""

    name: ClassVar[str] = "salun"
    adapts: ClassVar[bool] = False
    lr: float = Optimisation.field("lr", 0.01)
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification", "image-generation"})
    alpha: float = Field(0.5, ge=0, description="Diffusion models: weight of the denoising loss on retained samples.")
    share: float = Field(0.5, gt=0, le=1, description="Share of the weights that may move: those with the largest gradients on the forget set.")

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """A diffusion model that no concept can be asked for."""
        found = super().faults(problem, engine)
        if isinstance(engine.task, ImageGeneration):
            with collecting(found):
                need_conditions(problem)
        return found

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        model = copy.deepcopy(problem.original.model)
        with only(model, self.trained(problem)):
            shuffled = problem.forget.shuffled(derive_seed(engine.seed, self.name))
            masks = saliency_mask(summed_gradients(engine, model, shuffled, self.batch_size), self.share)
        original = dict(problem.original.model.named_parameters())
        # In the order in which the trained parameters come, under whatever names a wrapper gives them.
        fixed = [(~mask.to(engine.device), original[name].detach().to(engine.device)) for name, mask in masks.items()]

        def mask_gradients(model: nn.Module, step: Step) -> None:
            del step
            for parameter, (out, _) in zip(_trained(model), fixed, strict=True):
                if parameter.grad is not None:
                    parameter.grad.masked_fill_(out, 0)

        def put_back(model: nn.Module, step: Step) -> None:
            del step
            with torch.no_grad():
                for parameter, (out, start) in zip(_trained(model), fixed, strict=True):
                    parameter.copy_(torch.where(out, start, parameter))

        plan = self._relabelling(problem, engine) if isinstance(engine.task, ImageGeneration) else super().plan(problem, engine)
        return replace(plan, after_backward=mask_gradients, after_step=put_back)

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        return ObjectiveMethod.sets(self, problem, engine) if isinstance(engine.task, ImageGeneration) else super().sets(problem, engine)

    def _relabelling(self, problem: Problem, engine: Engine) -> Plan:
        """An epoch goes once over the forget set, with retained samples beside it."""
        need_conditions(problem)
        task = diffusion_task(engine)

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            value = relabelled_loss(task, model, forget, retain)
            return value + self.alpha * task.losses(model, retain).mean() if self.alpha else value

        return Plan([Pass("both", loss, paced_by="forget")] * self.epochs)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
