"""Gradients that are looked at rather than followed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating, on_device


def mean_squared_gradients(engine: Engine, model: nn.Module, samples: Samples, batch_size: int) -> dict[str, Tensor]:
    """Diagonal importance I = (1/B) Σ_b (∂ℓ_b/∂θ)², ℓ_b the mean loss of batch b of B, in eval mode.

    With `batch_size` 1 this is the diagonal of the empirical Fisher information; larger batches are cheaper and average before squaring.

    Args:
        engine: computes and counts.
        model: unchanged; parameters that do not require gradients are left out.
        samples: in order.
        batch_size: samples whose gradients are averaged before squaring.

    Returns:
        One tensor per parameter, shaped like it, on the CPU.
    """
    sums, batches = _summed(engine, model, samples, batch_size, torch.square)
    return {name: total / batches for name, total in sums.items()}


def summed_gradients(engine: Engine, model: nn.Module, samples: Samples, batch_size: int) -> dict[str, Tensor]:
    """Σ_b ∂ℓ_b/∂θ, ℓ_b the mean loss of batch b, in eval mode.

    Arguments and result are those of `mean_squared_gradients`.
    """
    return _summed(engine, model, samples, batch_size, lambda gradient: gradient)[0]


def _summed(engine: Engine, model: nn.Module, samples: Samples, batch_size: int, function: Callable[[Tensor], Tensor]) -> tuple[dict[str, Tensor], int]:
    """Σ_b f(∂ℓ_b/∂θ), and the number of batches."""
    names, parameters = zip(*((name, p) for name, p in model.named_parameters() if p.requires_grad), strict=True)
    batches = 0
    with on_device(model, engine.device), evaluating(model):
        sums = [torch.zeros_like(p) for p in parameters]
        for batch in engine.batches(samples, batch_size):
            loss = engine.task.losses(model, batch).mean()
            for total, gradient in zip(sums, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                if gradient is not None:
                    total.add_(function(gradient))
            batches += 1
            engine.meter.count(len(next(iter(batch.values()))))
    return {name: total.cpu() for name, total in zip(names, sums, strict=True)}, batches
