"""ESD: the model learns to answer a concept's prompt as the original would if it were guided away from the concept.

Paper: Gandikota et al. 2023 (ICCV), "Erasing Concepts from Diffusion Models", arXiv 2303.07345; code of the authors: rohitgandikota/erasing.
Formula: x_t is drawn by running the original with prompt c and guidance 3 down to a random step t of a grid of 50. Descend
mean (ε_θ(x_t, c) − ε_0(x_t, c_from) + η (ε_0(x_t, c) − ε_0(x_t, ∅)))², ε_0 the original, ∅ the empty prompt, c_from = c unless another prompt is named.
`variant` says what is trained: x the cross-attention, u all of the UNet but that, x-strict the keys and values of the cross-attention, all the UNet.
Defaults of the authors (their code): Adam, lr 5e-5, 200 steps, batch 1, η 2. Their version of 2023 has ∅ in the place of c_from (`base` empty), η 1, lr 1e-5,
1000 steps.
Deviations: c goes over the prompts of the forget set, the samples' own, so that several prompts of a concept are erased together; images are not used. Where
the UNet predicts v or x, the formula holds of these predictions; they are the same up to the weight of a timestep, as the three terms are at the same x_t.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import LossFunction
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, collecting
from unlearned.methods import methods
from unlearned.methods._diffusion import PARTS, DiffusionMethod, diffusion_task, mean_squared_error, need_conditions
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks.image_generation import ddim, denoiser_of, empty_condition, timesteps_of

_VARIANTS = {"x": "cross-attention", "u": "not-cross-attention", "x-strict": "keys-and-values", "all": "unet"}


def erased_target(base: Tensor, concept: Tensor, empty: Tensor, scale: float) -> Tensor:
    """Base − η (concept − empty), any shape.

    Args:
        base: the original's prediction that the concept's shall become, without the push away.
        concept: its prediction for the concept.
        empty: its prediction for the empty prompt.
        scale: η.
    """
    return base - scale * (concept - empty)


@methods.register("esd")
class ESD(DiffusionMethod):
    """Guide away from the concept, by weights."""

    name: ClassVar[str] = "esd"
    over: ClassVar[Literal["forget", "both"]] = "forget"
    lr: float = Optimisation.field("lr", 5e-5)
    batch_size: int = Optimisation.field("batch_size", 1)
    steps: int | None = DiffusionMethod.field("steps", 200)
    variant: Literal["x", "u", "x-strict", "all"] = Field("x", description="What is trained: cross-attention, all but that, its keys and values, the UNet.")
    scale: float = Field(2.0, gt=0, description="η: how strongly the target is pushed away from the concept.")
    base: Literal["concept", "empty"] = Field("concept", description="From where it is pushed: the concept's own prediction, or that of the empty prompt.")
    erase_from: str | None = Field(
        None, description="A prompt whose prediction is the base in the place of the concept's: the concept is erased from it alone."
    )
    trajectory_steps: int = Field(50, ge=1, le=1000, description="Grid of the sampling that draws x_t.")
    trajectory_guidance: float = Field(3.0, ge=1, description="Guidance of the sampling that draws x_t.")

    def trained(self, problem: Problem) -> str:
        del problem
        return self.parameters or PARTS[_VARIANTS[self.variant]]

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """Further: a model without an empty prompt; a prompt that it cannot read."""
        found = super().faults(problem, engine)
        with collecting(found):
            empty_condition(problem.original.model, 1)
        if self.erase_from is not None and not found:
            with collecting(found):
                diffusion_task(engine).prompts([self.erase_from], problem.original, "method.erase_from")
        return found

    def objective(self, problem: Problem, engine: Engine) -> LossFunction:
        need_conditions(problem)
        task, original = diffusion_task(engine), problem.original
        empty_condition(original.model, 1)
        base = None if self.erase_from is None else task.prompts([self.erase_from], original, "method.erase_from").to(engine.device)
        grid = timesteps_of(original.model, self.trajectory_steps).to(engine.device)
        shape = denoiser_of(original.model).latent_shape

        def draw(model: nn.Module, batch: Batch) -> Tensor:
            """x_t, and the original's predictions for concept, ∅ and base, (4, B, C, H, W)."""
            condition, stop = batch["condition"], int(batch["stop"])
            count, how = len(condition), {"steps": self.trajectory_steps, "guidance": self.trajectory_guidance}
            noisy = ddim(model, batch["noise"], condition, stop=stop, **how)  # type: ignore[arg-type]
            empty = empty_condition(model, count)
            from_ = {"concept": condition, "empty": empty}[self.base] if base is None else base.expand(count, *base.shape[1:])
            parts = [model(noisy, grid[stop].expand(count), c) for c in (condition, empty, from_)]
            return torch.stack([noisy, *parts])

        teacher = self.original_outputs(problem, engine, draw)

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            del retain
            condition = task.condition(model, forget)
            assert condition is not None
            stop = torch.randint(self.trajectory_steps, ())
            noise = torch.randn(len(condition), *shape).to(denoiser_of(model).alphas_cumprod)
            noisy, concept, empty, from_ = teacher(model, {"condition": condition, "noise": noise, "stop": stop})
            prediction = model(noisy, grid[int(stop)].expand(len(condition)), condition)
            return mean_squared_error(prediction, erased_target(from_, concept, empty, self.scale))

        return loss
