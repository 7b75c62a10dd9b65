"""Concept ablation (AC): asked for the concept, the model learns to answer as it does for an anchor.

Paper: Kumari et al. 2023 (ICCV), "Ablating Concepts in Text-to-Image Diffusion Models", arXiv 2303.13516; code of the authors: nupurkmr9/concept-ablation.
Formula: x an anchor image, a its prompt, c* a prompt of the concept. `towards` model: descend mean (ε_θ(x_t, c*) − sg ε_θ(x_t, a))²; noise: the denoising
loss of the pair (x, c*). With `prior_weight` w, plus w times the denoising loss of (x, a).
Defaults of the authors: keys and values of the cross-attention (`variant` cross-attention), lr 2e-6 for each sample of a step on all devices, 100 steps, batch
4, no prior loss. Variants: attention (all of it), full.
Deviations: anchor images are retained samples, those that `anchor` chooses, with their own prompts; the authors generate 1000 from the anchor's prompt. lr is
that of a batch of 4 on one device. Their third variant trains the embedding of a word and is left out. AdamW is ours to name: weight decay 1e-2.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.loop import LossFunction
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, collecting
from unlearned.methods import methods
from unlearned.methods._diffusion import PARTS, DiffusionMethod, asked, beside, chosen, diffusion_task, mean_squared_error, need_conditions, told
from unlearned.problem import Problem
from unlearned.tasks._task import Batch

_VARIANTS = {"cross-attention": "keys-and-values", "attention": "attention", "full": "unet"}


@methods.register("concept-ablation")
class ConceptAblation(DiffusionMethod):
    """Map the concept to an anchor."""

    name: ClassVar[str] = "concept-ablation"
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adamw")
    lr: float = Optimisation.field("lr", 8e-6)
    weight_decay: float = Optimisation.field("weight_decay", 1e-2)
    batch_size: int = Optimisation.field("batch_size", 4)
    steps: int | None = DiffusionMethod.field("steps", 100)
    variant: Literal["cross-attention", "attention", "full"] = Field(
        "cross-attention", description="What is trained: keys and values of the cross-attention, all attention, the UNet."
    )
    towards: Literal["model", "noise"] = Field("model", description="What the concept's prompt shall give: the anchor's prediction, or noise.")
    anchor: str | None = Field(None, description="Filter for the retained samples that serve as anchor: label == 1; None: all.")
    prior_weight: float = Field(0.0, ge=0, description="Weight of the denoising loss of anchor images under their own prompts.")

    def trained(self, problem: Problem) -> str:
        del problem
        return self.parameters or PARTS[_VARIANTS[self.variant]]

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """Further: an anchor that chooses nothing."""
        found = super().faults(problem, engine)
        with collecting(found):
            chosen(problem.retain, self.anchor, "method.anchor")
        return found

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        return super().sets(problem, engine) | {"retain": chosen(problem.retain, self.anchor, "method.anchor")}

    def objective(self, problem: Problem, engine: Engine) -> LossFunction:
        need_conditions(problem)
        task = diffusion_task(engine)

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            anchor = task.noised(model, retain)
            concept = beside(task.condition(model, forget), len(anchor.noisy))
            target = anchor.target if self.towards == "noise" else told(model, anchor, anchor.condition)
            value = mean_squared_error(asked(model, anchor, concept), target)
            if self.prior_weight:
                value = value + self.prior_weight * task.losses(model, retain).mean()
            return value

        return loss
