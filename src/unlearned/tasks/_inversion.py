"""DDIM inversion: from an image back to the noise that a diffusion model would have drawn it from, and where such a way is left again.

The deterministic sampler read backwards (Song et al. 2021, arXiv 2010.02502; Dhariwal and Nichol 2021, arXiv 2105.05233), on the timesteps of the sampler.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unlearned.tasks._denoisers import Embedded, denoiser_of
from unlearned.tasks._sampling import guided, timesteps_of


class Crossing(NamedTuple):
    """Where an inverted image leaves its way to noise, and where a regeneration begins. Positions count the sampler's timesteps t_0 < t_1 < ... upwards."""

    taken: int
    """Position of the state that is taken."""
    begun: int
    """Position of the timestep at which denoising begins."""


def crossing(steps: int, start: int, *, aligned: bool) -> Crossing:
    """Where the ways meet: denoising leaves out its first `start` steps.

    Aligned, the state is that of the timestep where denoising begins. As in the code of MemoRa it is that of one grid step less noise: on 50 of 1000 timesteps
    with start 15 the state is that of t = 661, and denoising begins at t = 681.

    >>> crossing(50, 15, aligned=False), crossing(50, 15, aligned=True)
    (Crossing(taken=33, begun=34), Crossing(taken=34, begun=34))

    Args:
        steps: timesteps of the sampler.
        start: steps left out, in [0, steps − 3], or steps − 2 where aligned.
        aligned: whether both are the same.

    Raises:
        ValueError: if no step of inversion would be left.
    """
    begun = steps - 1 - start
    taken = begun if aligned else begun - 1
    if start < 0 or taken < 1:
        raise ValueError(f"of {steps} steps {start} cannot be left out: no step of inversion is left")
    return Crossing(taken, begun)


def inversion_step(latents: Tensor, noise: Tensor, before: float | Tensor, after: float | Tensor) -> Tensor:
    """(z − √(1−ᾱ) ε) √(ᾱ'/ᾱ) + √(1−ᾱ') ε: for the same ε the inverse of a DDIM step from ᾱ' to ᾱ.

    Args:
        latents: z, at the level of noise ᾱ.
        noise: ε, what the model says is in it.
        before: ᾱ.
        after: ᾱ' < ᾱ.
    """
    lower, upper = (torch.as_tensor(level, dtype=latents.dtype, device=latents.device) for level in (before, after))
    return (latents - (1 - lower).sqrt() * noise) * (upper / lower).sqrt() + (1 - upper).sqrt() * noise


def invert(
    model: nn.Module, latents: Tensor, condition: Tensor | Embedded | None, *, steps: int, guidance: float = 1.0, last: int | None = None
) -> list[Tensor]:
    """The states of images on their way to noise, at the timesteps t_1 ... t_last of the sampler's grid t_0 < t_1 < ...; no gradients.

    The image counts as the state at t_0. The step to t_i takes the model's noise at (z, t_i), the state being that of t_{i−1}, which makes the inversion
    explicit and inexact: exact only as far as the prediction stays the same over a step. Guidance makes it less exact.

    Args:
        model: may be wrapped; whoever forgot is asked, its text encoder included.
        latents: of the images, (B, C, H, W).
        condition: as `Denoiser.forward` takes it.
        steps: timesteps of the grid.
        guidance: w of classifier-free guidance; 1: none.
        last: how far; None: to the last timestep.

    Raises:
        InputError: if the model has no empty prompt to be guided away from.
    """
    inner = denoiser_of(model)
    grid = timesteps_of(model, steps).flip(0).to(latents.device)
    bars = inner.alphas_cumprod.to(latents)
    states, found = latents, []
    with torch.no_grad():
        for before, t in pairwise(grid[: None if last is None else last + 1]):
            when = t.expand(len(states))
            noise = inner.noise_in(guided(model, states, when, condition, guidance), states, when)
            states = inversion_step(states, noise, bars[before], bars[t])
            found.append(states)
    return found
