"""Selective amnesia (SA): learn noise for the concept, rehearse the rest, and hold the weights that matter.

Paper: Heng and Soh 2023 (NeurIPS), "Selective Amnesia: A Continual Learning Approach to Forgetting in Deep Generative Models", arXiv 2305.10120; code of the
authors: clear-nus/selective-amnesia.
Formula: descend ℓ(u, c_f) + γ ℓ(replay) + λ Σ_i F_i (θ_i − θ0_i)², ℓ the denoising loss, u images of uniform noise in [−1, 1] under the concept's own
conditions, replay images that the original generates for retained conditions, F_i the mean over the replay of (∂/∂θ_i Σ_t ℓ_t)², the diagonal Fisher
information of the whole sum over timesteps, squared sample by sample.
Defaults of the authors (DDPM on CIFAR-10): γ 1, λ 10, 20,000 steps, lr 1e-4, batch 128, gradients clipped at 1, 500 replayed images of each class, all 1000
timesteps in F, the whole UNet.
Deviations: `replay` counts retained samples whose conditions are generated from, drawn once, whatever their classes. ℓ_t is the mean over pixels; with their
sum F, and so the weight of λ, would be (CHW)² times as large. Fewer timesteps in F are spread evenly, and their sum scaled to all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine, evaluating, on_device
from unlearned.engine.loop import LossFunction, only
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.methods import methods
from unlearned.methods._diffusion import DiffusionMethod, diffusion_task, need_conditions
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks.image_generation import ImageGeneration, denoiser_of

_CHUNK = 64
"""Timesteps of one sample that go through the model side by side."""


def held(weights: Sequence[Tensor], start: Sequence[Tensor], importance: Sequence[Tensor]) -> Tensor:
    """Σ_i F_i (θ_i − θ0_i)² over all entries of all tensors, a scalar."""
    parts = [(f * (w - s) ** 2).sum() for w, s, f in zip(weights, start, importance, strict=True)]
    return torch.stack(parts).sum()


def fisher(task: ImageGeneration, model: nn.Module, batches: Sequence[Batch], timesteps: int) -> list[Tensor]:
    """Mean over samples of (∂/∂θ Σ_t ℓ_t)², one tensor for each parameter that requires a gradient.

    Args:
        task: gives noise and losses.
        model: in eval mode.
        batches: one sample each, with `pixel_values`.
        timesteps: how many of the schedule, spread evenly; their sum is scaled to all.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    sums = [torch.zeros_like(p) for p in weights]
    for batch in batches:
        score = [torch.zeros_like(p) for p in weights]
        for first in range(0, timesteps, _CHUNK):
            places = torch.arange(first, min(first + _CHUNK, timesteps))
            many = {name: tensor.expand(len(places), *tensor.shape[1:]) for name, tensor in batch.items()}
            many["noise_seed"] = many["noise_seed"] * timesteps + places.to(many["noise_seed"])  # noise of its own for each timestep
            noised = task.noised(model, many, at=(places + 0.5) / timesteps)
            losses = ((model(noised.noisy, noised.timesteps, noised.condition) - noised.target) ** 2).flatten(1).mean(dim=1)
            torch._foreach_add_(score, torch.autograd.grad(losses.sum(), weights, materialize_grads=True))
        torch._foreach_add_(sums, [gradient**2 for gradient in score])
    return [total / len(batches) for total in sums]


@methods.register("selective-amnesia")
class SelectiveAmnesia(DiffusionMethod):
    """Noise for the concept, replay, elastic weights."""

    name: ClassVar[str] = "selective-amnesia"
    lr: float = Optimisation.field("lr", 1e-4)
    batch_size: int = Optimisation.field("batch_size", 128)
    max_grad_norm: float | None = Optimisation.field("max_grad_norm", 1.0)
    steps: int | None = DiffusionMethod.field("steps", 20_000)
    adapts: ClassVar[bool] = False
    gamma: float = Field(1.0, ge=0, description="γ: weight of the replay.")
    hold: float = Field(10.0, ge=0, description="λ: weight of the elastic term.")
    replay: int = Field(4500, ge=1, description="Images that the original generates, from as many retained samples at most.")
    fisher_timesteps: int = Field(1000, ge=1, description="Timesteps whose losses are summed for the Fisher information, at most all.")

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        need_conditions(problem)
        drawn = problem.retain.shuffled(derive_seed(engine.seed, self.name)).subset(range(min(self.replay, len(problem.retain))))
        made = engine.evaluate(problem.original.model, drawn, diffusion_task(engine).images).to(torch.float32) * 2 - 1
        return super().unlearn(replace(problem, retain=drawn.attach("replay", made)), engine)

    def objective(self, problem: Problem, engine: Engine) -> LossFunction:
        task, original = diffusion_task(engine), problem.original.model
        start: list[Tensor] = []
        importance: list[Tensor] = []
        if self.hold:
            with only(original, self.trained(problem)), on_device(original, engine.device), evaluating(original):
                total = len(denoiser_of(original).alphas_cumprod)
                timesteps = min(self.fisher_timesteps, total)
                batches = [_replayed(batch) for batch in engine.batches(problem.retain, 1)]
                importance = [(total / timesteps) ** 2 * f for f in fisher(task, original, batches, timesteps)]
                start = [p.detach().clone() for p in original.parameters() if p.requires_grad]

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            images = forget["pixel_values"]
            noise = torch.rand(images.shape).to(images) * 2 - 1
            value = task.losses(model, {**forget, "pixel_values": noise}).mean() + self.gamma * task.losses(model, _replayed(retain)).mean()
            if start:
                value = value + self.hold * held([p for p in model.parameters() if p.requires_grad], start, importance)
            return value

        return loss


def _replayed(batch: Batch) -> Batch:
    return {**batch, "pixel_values": batch["replay"].to(batch["pixel_values"])}
