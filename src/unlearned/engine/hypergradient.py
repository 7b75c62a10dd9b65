"""The gradient of a loss after fine-tuning with respect to the weights from which the fine-tuning started, without following its steps.

Fine-tuning is modelled as a proximal problem, its Moreau envelope: from weights θ it ends at w*(θ) = argmin_w L(w) + ‖w − θ‖² / 2γ. Stationarity,
differentiated with respect to θ (implicit function theorem), gives dw*/dθ = (I + γH)⁻¹ with H = ∇²L(w*), so that for any loss F and g = ∇F(w*)

    h = ∇_θ F(w*(θ)) = (I + γH)⁻¹ g.

Only w* and products of H with vectors are needed. Richardson iteration solves the system: x₀ = 0, x_{k+1} = g − γ H x_k, whose error is
x_k − h = −(−γH)^k h. It converges if the spectral radius of γH is below 1; x₁ = g is the first-order gradient.
Damped by s ≤ 1 it is v_{k+1} = Φ v_k + g with Φ = I − s (I + γH) and x_k = s v_k: the same solution as k grows, smaller steps towards it.

Which weights θ can change and which weights the fine-tuning trains need not be the same (adapters that were not there before, layers that are frozen on one
side). Where fine-tuning trains only a part w_F, with x = (I + γ H_FF)⁻¹ g_F, the gradient is x where a weight is in both, and g_p − γ H_pF x for a weight p
that fine-tuning leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearned.engine.settings import Settings

Tensors = list[Tensor]
Product = Callable[[Tensors, Sequence[Tensor]], Tensors]
"""(x, weights p) to ∂²L/∂p∂w_F · x for each p; x is shaped like the fine-tuned weights w_F."""
Scalar = Callable[[], Tensor]
"""A loss of the weights as they are, with the same samples and the same noise at each call."""
Limit = Callable[[Tensors], bool]
"""Whether a solution is small enough to be used."""

CONVERGED = 1e-10
"""Norm of a residual below which no further step is made."""


class Proximal(Settings):
    """The model of fine-tuning, and how its system is solved. Defaults: code of ResAlign (Li et al. 2025, arXiv 2507.16302)."""

    gamma: float = Field(1.0, gt=0, description="γ: how far fine-tuning is thought to go. Towards 0 the gradient is the first-order one.")
    iterations: int = Field(5, ge=1, le=100_000, description="K: steps of the Richardson iteration; 1: the first-order gradient.")
    products: Literal["exact", "differences"] = Field(
        "exact", description="Hessian-vector products: by double backward, or by central differences of gradients, which take less memory."
    )
    guard: Literal["residual", "iterates"] = Field(
        "residual",
        description="What shows that the iteration diverges: the residual does not shrink, or ‖Φv‖ > ‖v‖ in the mean over tensors, as the authors' code.",
    )
    retries: int = Field(5, ge=0, le=50, description="How often the damping is halved when the iteration diverges or the limit is passed; then it is given up.")


class Solution(NamedTuple):
    """What an iteration came to."""

    x: Tensors
    """x_K; zeros if it was given up."""
    damping: float
    """The s that was used last."""
    residual: float
    """‖g − (I + γH) x‖ / ‖g‖ before the last step: an upper bound of that after it, as residuals shrink."""
    ratio: float
    """The largest ratio that the guard saw; above 1 it diverges."""
    retries: int
    given_up: bool


class Hypergradient(NamedTuple):
    """∇_θ F(w*(θ)), and how it was got."""

    gradient: Tensors
    """One tensor per weight of θ."""
    value: float
    """F(w*)."""
    solution: Solution


def exact_products(loss: Scalar, tuned: Sequence[Tensor]) -> Product:
    """Products with the Hessian by double backward: H x = ∇⟨∇L, x⟩, the graph of ∇L built once, when the first product is asked for.

    Attention is computed by its plain formula: fused kernels have no second derivative.

    Args:
        loss: L of the weights as they are.
        tuned: w_F, leaves that require gradients.
    """

    @cache
    def slopes() -> tuple[Tensors, list[int]]:
        """∇L with its graph, and which of its tensors depend on the weights: of a linear loss no second derivative is left."""
        with sdpa_kernel(SDPBackend.MATH):
            found = torch.autograd.grad(loss(), list(tuned), create_graph=True, materialize_grads=True)
        return list(found), [i for i, gradient in enumerate(found) if gradient.requires_grad]

    def product(x: Tensors, weights: Sequence[Tensor]) -> Tensors:
        first, curved = slopes()
        if not curved:
            return [torch.zeros_like(weight) for weight in weights]
        along = [x[i] for i in curved]
        return list(torch.autograd.grad([first[i] for i in curved], list(weights), along, retain_graph=True, materialize_grads=True))

    return product


def difference_products(loss: Scalar, tuned: Sequence[Tensor], reach: float = 1e-2) -> Product:
    """Products with the Hessian by central differences: H x ≈ (∇L(w + r x) − ∇L(w − r x)) / 2r with r = `reach` / ‖x‖.

    The weights are moved and put back, to the same bits. Error O(r²) of the third derivative, and rounding divided by r.

    Args:
        loss: L of the weights as they are.
        tuned: w_F, leaves that require gradients.
        reach: length of the displacement.
    """

    def product(x: Tensors, weights: Sequence[Tensor]) -> Tensors:
        norm = norm_of(x)
        if norm == 0:
            return [torch.zeros_like(weight) for weight in weights]
        r = reach / norm
        start = [weight.detach().clone() for weight in tuned]
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for weight, before, direction in zip(tuned, start, x, strict=True):
                    weight.copy_(before + sign * r * direction)
            sides.append(torch.autograd.grad(loss(), list(weights), materialize_grads=True))
        with torch.no_grad():
            for weight, before in zip(tuned, start, strict=True):
                weight.copy_(before)
        return [(above - below) / (2 * r) for above, below in zip(*sides, strict=True)]

    return product


def solve(product: Callable[[Tensors], Tensors], g: Tensors, how: Proximal, small_enough: Limit | None = None) -> Solution:
    """(I + γH)⁻¹ g by K steps of Richardson iteration, with a guard against divergence.

    Undamped at first. When it diverges, or its result is not `small_enough`, the damping s is halved and it begins anew; after so many retries it is given up.
    The guard `residual` looks at ‖r_{k+1}‖ / ‖r_k‖ with r_k = g − (I + γH) x_k = v_{k+1} − v_k. As Φ is symmetric this ratio never falls from step to step:
    once it is 1 or more, the iteration diverges for certain, and while it is below 1, each step has come closer.

    Args:
        product: x to H x.
        g: right-hand side.
        how: γ, K, guard, retries.
        small_enough: of x; None: it always is.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in g):
        return Solution([torch.zeros_like(tensor) for tensor in g], 1.0, float("nan"), float("nan"), 0, given_up=True)
    damping = 1.0
    for retries in range(how.retries + 1):
        damping = 0.5**retries
        v, residual, ratio = _iterate(product, g, how, damping)
        x = [damping * part for part in v]
        if ratio < 1 and (small_enough is None or small_enough(x)):
            return Solution(x, damping, residual, ratio, retries, given_up=False)
    return Solution([torch.zeros_like(tensor) for tensor in g], damping, residual, ratio, how.retries, given_up=True)


def _iterate(product: Callable[[Tensors], Tensors], g: Tensors, how: Proximal, damping: float) -> tuple[Tensors, float, float]:
    """v_K with the last residual's share of ‖g‖ and the largest ratio of the guard; ends early when it diverges or has converged."""
    v, residual, worst = list(g), norm_of(g), 0.0  # v₁ = Φ 0 + g
    whole = residual
    rounding = 16 * torch.finfo(g[0].dtype).eps * whole
    for _ in range(how.iterations - 1):
        if residual < max(CONVERGED, rounding):
            break
        # Φ v + g in two passes over the memory: on a small model the products are so fast that more would show.
        pairs = zip(g, v, product(v), strict=True)
        following = [torch.add(right, part, alpha=1 - damping).sub_(curved, alpha=damping * how.gamma) for right, part, curved in pairs]
        new = norm_of([after - before for after, before in zip(following, v, strict=True)])
        ratio = new / residual if how.guard == "residual" else _mean_ratio([after - right for after, right in zip(following, g, strict=True)], v)
        v, residual, worst = following, new, max(worst, ratio if ratio == ratio else float("inf"))  # noqa: PLR0124  # NaN
        if not worst < 1:
            break
    return v, residual / whole if whole else 0.0, worst


def _mean_ratio(above: Tensors, below: Tensors) -> float:
    """Mean over tensors of ‖above‖ / ‖below‖, of those where there is something below."""
    pairs = [(float(a.norm()), float(b.norm())) for a, b in zip(above, below, strict=True)]
    ratios = [a / b for a, b in pairs if b > 0]
    return sum(ratios) / len(ratios) if ratios else 0.0


def hypergradient(
    outer: Scalar, inner: Scalar, tuned: Sequence[Tensor], started: Sequence[Tensor], how: Proximal, *, weight: float = 1.0, limit: Limit | None = None
) -> Hypergradient:
    """`weight` · ∇_θ F(w*(θ)), at weights that have been fine-tuned.

    Args:
        outer: F of the weights as they are.
        inner: L of the weights as they are, which fine-tuning lowered.
        tuned: w_F, what fine-tuning trained. Leaves that require gradients, as those of `started`.
        started: θ, what it started from and what can be changed: each the same tensor as in `tuned`, or one that fine-tuning left alone.
        how: γ and how the system is solved.
        weight: factor on F.
        limit: whether a gradient (one tensor per weight of θ) may be used; None: any may.

    Returns:
        Gradients are zeros where no iteration converged within the limit: `solution.given_up`.
    """
    trained = {id(w) for w in tuned}
    alone = [w for w in started if id(w) not in trained]
    value = outer()
    gradients = torch.autograd.grad(weight * value, [*tuned, *alone], materialize_grads=True)
    g, beside = list(gradients[: len(tuned)]), list(gradients[len(tuned) :])
    product = (exact_products if how.products == "exact" else difference_products)(inner, tuned)

    def carried_back(x: Tensors) -> Tensors:
        """From the weights that fine-tuning trained to those that it started from."""
        found = {id(w): part for w, part in zip(tuned, x, strict=True)}
        if alone:
            # With one iteration x is g and no product is taken: to first order the fine-tuned weights do not depend on these.
            crossed = product(x, alone) if how.iterations > 1 else [torch.zeros_like(w) for w in alone]
            found |= {id(w): part - how.gamma * cross for w, part, cross in zip(alone, beside, crossed, strict=True)}
        return [found[id(w)] for w in started]

    solution = solve(lambda x: product(x, tuned), g, how, None if limit is None else lambda x: limit(carried_back(x)))
    gradient = [torch.zeros_like(w) for w in started] if solution.given_up else carried_back(solution.x)
    return Hypergradient([part.detach() for part in gradient], value.item(), solution)


def norm_of(tensors: Sequence[Tensor]) -> float:
    """Euclidean norm of all entries together."""
    return float(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]).norm())
