"""Products with the Gauss-Newton matrix of a network, and two ways to solve with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating
from unlearned.errors import DivergedError
from unlearned.tasks._task import Batch

Product = Callable[[Tensor], Tensor]

MOST_STEPS = 10_000
"""Of LiSSA, where nobody says how many."""


class GaussNewton:
    """v ↦ (G + λ I) v with G = (1/n) Σ_z J_zᵀ (w (diag(p) − p pᵀ)) J_z, J the Jacobian of the logits, in eval mode.

    For a cross-entropy it is the Fisher information matrix of the model's own answers, too.

    Args:
        engine: computes and counts.
        model: on the engine's device.
        samples: over which G is the mean; they are held in memory.
        names: of the parameters, one behind the other.
        damping: λ.
    """

    def __init__(self, engine: Engine, model: nn.Module, samples: Samples, names: Sequence[str], damping: float = 0.0) -> None:
        self._engine, self._model, self._count, self.damping = engine, model, len(samples), damping
        self._batches = list(engine.batches(samples))
        own = dict(model.named_parameters())
        self._weights = [own[name] for name in names]
        self.size = sum(weight.numel() for weight in self._weights)

    def __call__(self, vector: Tensor) -> Tensor:
        """Over all samples; (d,) to (d,)."""
        total = torch.zeros_like(vector)
        for batch in self._batches:
            total += self._summed(vector, batch)
        return total / self._count + self.damping * vector

    def stochastic(self, vector: Tensor, batch: Batch) -> Tensor:
        """Over the samples of a batch alone."""
        return self._summed(vector, batch) / len(next(iter(batch.values()))) + self.damping * vector

    def _summed(self, vector: Tensor, batch: Batch) -> Tensor:
        pieces = torch.split(vector, [weight.numel() for weight in self._weights])
        along = [piece.view(weight.shape) for piece, weight in zip(pieces, self._weights, strict=True)]
        # The fused kernels of attention have no second derivative.
        with evaluating(self._model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            choices = self._engine.task.choices(self._model, batch)
            z = choices.logits
            # J v: the derivative of u ↦ Jᵀ u, which is linear, in the direction v.
            u = torch.zeros_like(z, requires_grad=True)
            pulled = torch.autograd.grad(z, self._weights, u, create_graph=True, materialize_grads=True)
            linear = [(pull, v) for pull, v in zip(pulled, along, strict=True) if pull.requires_grad]
            [moved] = torch.autograd.grad([pull for pull, _ in linear], u, [v for _, v in linear], retain_graph=True)
            p = z.detach().softmax(dim=-1)
            curved = choices.weights[..., None] * p * (moved - (p * moved).sum(dim=-1, keepdim=True))
            back = torch.autograd.grad(z, self._weights, curved, materialize_grads=True)
        self._engine.meter.count(len(z))
        return torch.cat([gradient.flatten() for gradient in back])


def conjugate_gradients(product: Product, right: Tensor, tolerance: float, most: int) -> Tensor:
    """X with A x = b, for a positive definite A (Hestenes and Stiefel 1952).

    Args:
        product: v ↦ A v.
        right: b, (d,).
        tolerance: stop where ‖b − A x‖ ≤ tolerance · ‖b‖.
        most: iterations.
    """
    x = torch.zeros_like(right)
    residual, direction = right.clone(), right.clone()
    square = residual @ residual
    goal = (tolerance * right.norm()) ** 2
    for _ in range(most):
        if square <= goal:
            break
        image = product(direction)
        step = square / (direction @ image)
        x += step * direction
        residual -= step * image
        following = residual @ residual
        direction = residual + following / square * direction
        square = following
    return x


def lissa(products: Callable[[int, Tensor], Tensor], right: Tensor, scale: float, depth: int, tolerance: float) -> Tensor:
    """H⁻¹ v by h ← v + (I − H/σ) h from h = v; the result is h/σ, if 0 < H/σ < I (Agarwal et al. 2017; Koh and Liang 2017).

    Args:
        products: (step, h) ↦ H h, perhaps of another batch in each step.
        right: v, (d,).
        scale: σ, above the largest eigenvalue of H.
        depth: steps at most.
        tolerance: stop where ‖v − H h/σ‖ ≤ tolerance · ‖v‖.

    Raises:
        DivergedError: if σ is too small.
    """
    h = right.clone()
    limit = 1e8 * (1 + float(right.norm()))
    for step in range(depth):
        residual = right - products(step, h) / scale
        if residual.norm() <= tolerance * right.norm():
            break
        h = h + residual
        if not float(h.norm()) < limit:
            raise DivergedError(f"LiSSA diverged at step {step}: `scale` {scale:.3g} is below the largest eigenvalue. Raise it.")
    return h / scale


def steps_of_lissa(damping: float, scale: float, tolerance: float) -> int:
    """Steps that reach the tolerance for sure, at most MOST_STEPS: after k of them the residual is (I − H/σ)ᵏ⁺¹ v, and no eigenvalue of H is below λ."""
    if damping >= scale:
        return MOST_STEPS
    return max(1, min(MOST_STEPS, math.ceil(math.log(tolerance) / math.log1p(-damping / scale))))


def relative_residual(product: Product, x: Tensor, right: Tensor) -> float:
    """‖b − A x‖ / ‖b‖; 0 if b is 0. Both methods come to A⁻¹ b from below: a large residual is of a solution that is too short."""
    size = float(right.norm())
    return float((right - product(x)).norm()) / size if size else 0.0


def largest_eigenvalue(product: Product, size: int, seed: int, *, like: Tensor, rounds: int = 20) -> float:
    """Of a positive definite matrix, by power iteration; a little too small, never too large."""
    v = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(like)
    value = 0.0
    for _ in range(rounds):
        v = v / v.norm()
        image = product(v)
        value = float(v @ image)
        v = image
    return value


def mean_eigenvalue(product: Product, size: int, seed: int, *, like: Tensor, rounds: int = 8) -> float:
    """Trace over dimension by random signs (Hutchinson 1990)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(rounds):
        v = (2 * torch.randint(0, 2, (size,), generator=generator) - 1).to(like)
        found.append(float(v @ product(v)) / size)
    return sum(found) / rounds
