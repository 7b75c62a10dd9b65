"""Images from a diffusion model: deterministic, by DDIM, guided towards the prompt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unlearned.errors import Fault, InputError
from unlearned.tasks._denoisers import Embedded, denoiser_of


def ddim(
    model: nn.Module,
    noise: Tensor,
    condition: Tensor | Embedded | None,
    *,
    steps: int,
    guidance: float = 1.0,
    begin: int = 0,
    stop: int | None = None,
) -> Tensor:
    """Latents x_0 from noise x_T by DDIM with η = 0 (Song et al. 2021, arXiv 2010.02502, equation 12), differentiable.

    The prediction is guided (Ho and Salimans 2022, arXiv 2207.12598): f(∅) + w (f(c) − f(∅)). Timesteps, clipping and the last step are those that the
    model's scheduler configuration says, as the `DDIMScheduler` of diffusers reads it from the disk; where it says nothing of clipping, images are clipped and
    latents of an autoencoder are not.

    Args:
        model: may be wrapped.
        noise: (B, C, H, W), standard normal.
        condition: as `Denoiser.forward` takes it.
        steps: forward passes, twice as many with guidance.
        guidance: w; 1: none.
        begin: leave out so many steps; `noise` is then the latents x_t for t = `timesteps_of(model, steps)[begin]`.
        stop: leave after so many steps, with the latents x_t for t = `timesteps_of(model, steps)[stop]`; None: go all the way.

    Raises:
        InputError: if the model has no empty prompt to be guided away from.
    """
    scheduler = _scheduler(model, steps)
    latents = noise
    for t in scheduler.timesteps[begin:stop].to(noise.device):
        prediction = guided(model, latents, t.expand(len(latents)), condition, guidance)
        latents = scheduler.step(prediction, t, latents).prev_sample
    return latents


def timesteps_of(model: nn.Module, steps: int) -> Tensor:
    """The timesteps that `ddim` visits, from noise to image, (steps,)."""
    found: Tensor = _scheduler(model, steps).timesteps
    return found


def _scheduler(model: nn.Module, steps: int) -> Any:
    from diffusers import DDIMScheduler

    inner = denoiser_of(model)
    # Without the note which values are defaults of another scheduler: it is lost on the disk, and with it diffusers would put DDIM's own in their place.
    config = {name: value for name, value in inner.scheduler.config.items() if name != "_use_default_values"}
    scheduler: Any = DDIMScheduler.from_config({"clip_sample": inner.vae is None, **config})
    scheduler.set_timesteps(steps)
    return scheduler


def guided(model: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensor | Embedded | None, guidance: float) -> Tensor:
    """f(x, t, ∅) + w (f(x, t, c) − f(x, t, ∅)), (B, C, H, W); for w = 1 the prediction for c, in one pass.

    ∅ is the empty prompt; for a model that is made so (`Denoiser.zeros`) an embedding of zeros, where methods that name the empty prompt still mean its own.
    """
    if guidance == 1:
        out: Tensor = model(noisy, timesteps, condition)
        return out
    without, given = model(torch.cat([noisy, noisy]), timesteps.repeat(2), _beside_empty(model, condition)).chunk(2)
    mixed: Tensor = without + guidance * (given - without)
    return mixed


def empty_condition(model: nn.Module, count: int) -> Tensor:
    """Token ids of the empty prompt, (B, E, T).

    Raises:
        InputError: if the model has none.
    """
    empty = denoiser_of(model).empty
    if empty is None:
        what = "the model has no empty prompt: it is conditioned on a class or on nothing, or was made without its tokenizer."
        raise InputError(Fault("model", what, "Use a model with a text encoder; without one, leave guidance at 1 and choose a method without an empty prompt."))
    return empty.expand(count, *empty.shape)


def _beside_empty(model: nn.Module, condition: Tensor | Embedded | None) -> Tensor | Embedded:
    """Twice as many conditions: what guidance leads away from, and what is given."""
    if denoiser_of(model).zeros and condition is not None:
        given = condition if isinstance(condition, Embedded) else denoiser_of(model).embed(condition)
        pooled = None if given.pooled is None else torch.cat([torch.zeros_like(given.pooled), given.pooled])
        return Embedded(torch.cat([torch.zeros_like(given.states), given.states]), pooled)
    if isinstance(condition, Embedded):
        empty = denoiser_of(model).embed(empty_condition(model, len(condition.states)))
        pooled = None if condition.pooled is None or empty.pooled is None else torch.cat([empty.pooled, condition.pooled])
        return Embedded(torch.cat([empty.states, condition.states]), pooled)
    if condition is None or condition.ndim == 1:
        return empty_condition(model, 1)  # raises: such a model has none
    return torch.cat([empty_condition(model, len(condition)), condition])
