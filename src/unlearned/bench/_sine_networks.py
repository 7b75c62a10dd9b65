"""Many small networks at once: a stack of perceptrons 1-h-h-1 with SiLU, each one row of a matrix of parameters.

A row holds, one after the other, W_1 (h), b_1 (h), W_2 (h x h), b_2 (h), w_3 (h), b_3 (1): the order of `nn.Module.parameters()`. For one sample x

    z_1 = W_1 x + b_1,   a_1 = silu(z_1),   z_2 = W_2 a_1 + b_2,   a_2 = silu(z_2),   f = w_3 a_2 + b_3

and the gradient of f by the weights and the bias of layer l is δ_l (a_{l-1}, 1)ᵀ with δ_3 = 1, δ_2 = w_3 ⊙ silu'(z_2), δ_1 = W_2ᵀ δ_2 ⊙ silu'(z_1). So the
gradients of samples are never formed one by one. Their inner products need those of activations and of signals alone, and a weighted sum of them is
one backward pass.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

from unlearned.engine.randomness import seeded

_CUT = 1e-12
"""Directions of the Gram matrix with an eigenvalue below this share of the largest are left out: in float64 they are known to no more than a percent."""


class Layers(NamedTuple):
    """Views into a matrix of parameters (B, d); a change of one is a change of the other."""

    w1: Tensor  # (B, h)
    b1: Tensor  # (B, h)
    w2: Tensor  # (B, h, h), output first
    b2: Tensor  # (B, h)
    w3: Tensor  # (B, h)
    b3: Tensor  # (B, 1)


class Forward(NamedTuple):
    """What a forward pass leaves behind for the backward pass."""

    x: Tensor  # (B, n)
    z1: Tensor  # (B, n, h)
    a1: Tensor  # (B, n, h)
    z2: Tensor  # (B, n, h)
    a2: Tensor  # (B, n, h)
    out: Tensor  # (B, n)


def module(width: int) -> nn.Sequential:
    """The network as a module, with the initial weights that PyTorch gives it."""
    return nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))


def fresh(seed: int, width: int) -> Tensor:
    """Initial parameters (d,) of `module` under a seed."""
    with seeded(seed), torch.no_grad():
        return parameters_to_vector(module(width).parameters())


def layers(theta: Tensor) -> Layers:
    """The parts of parameters (B, d)."""
    width = math.isqrt(3 + theta.shape[1]) - 2  # d = h² + 4h + 1
    w1, b1, w2, b2, w3, b3 = torch.split(theta, [width, width, width * width, width, width, 1], dim=1)
    return Layers(w1, b1, w2.view(len(theta), width, width), b2, w3, b3)


def forward(theta: Tensor, x: Tensor) -> Forward:
    """All networks on their own samples.

    Args:
        theta: parameters (B, d).
        x: samples (B, n).

    Returns:
        Outputs and what leads to them.
    """
    w1, b1, w2, b2, w3, b3 = layers(theta)
    z1 = torch.addcmul(b1[:, None], x[..., None], w1[:, None])
    a1 = functional.silu(z1)
    z2 = torch.baddbmm(b2[:, None], a1, w2.mT)
    a2 = functional.silu(z2)
    out = torch.baddbmm(b3[:, None], a2, w3[..., None])[..., 0]
    return Forward(x, z1, a1, z2, a2, out)


def signals(theta: Tensor, passed: Forward, delta: Tensor) -> tuple[Tensor, Tensor]:
    """What a backward pass brings to the two hidden layers: δ_1 and δ_2, both (B, n, h), for signals `delta` (B, n) at the outputs."""
    parts = layers(theta)
    second = torch.ops.aten.silu_backward(delta[..., None] * parts.w3[:, None], passed.z2)
    first = torch.ops.aten.silu_backward(torch.bmm(second, parts.w2), passed.z1)
    return first, second


def gradient(theta: Tensor, passed: Forward, delta: Tensor) -> Tensor:
    """Σ_i delta_i ∇f(x_i): a weighted sum of the gradients of outputs.

    Args:
        theta: parameters (B, d) that the signals go back through.
        passed: activations; those of the same parameters, unless the graph is to be stale.
        delta: weights of the samples (B, n), such as derivatives of a loss by the outputs.

    Returns:
        (B, d).
    """
    total = torch.empty_like(theta)
    w1, b1, w2, b2, w3, b3 = layers(total)
    first, second = signals(theta, passed, delta)
    torch.bmm(passed.x[:, None], first, out=w1[:, None])
    torch.sum(first, dim=1, out=b1)
    torch.bmm(second.mT, passed.a1, out=w2)
    torch.sum(second, dim=1, out=b2)
    torch.bmm(delta[:, None], passed.a2, out=w3[:, None])
    torch.sum(delta, dim=1, keepdim=True, out=b3)
    return total


def onto_gradients(theta: Tensor, x: Tensor) -> Tensor:
    """P_G θ: the part of the parameters in the span of the gradients ∇f(x_1) ... ∇f(x_n) of the outputs.

    With G = [∇f(x_1) ... ∇f(x_n)], M = GᵀG and P_G θ = G M⁺ Gᵀθ:

        M_ij     = Σ_l (δ_l,i · δ_l,j) (a_{l-1},i · a_{l-1},j + 1)
        (Gᵀθ)_i  = Σ_l δ_l,i · z_l,i            since W_l a_{l-1} + b_l = z_l

    Args:
        theta: parameters (B, d).
        x: samples (B, n).

    Returns:
        (B, d); computed in float64 and given back in the type of `theta`.
    """
    exact, points = theta.double(), x.double()
    passed = forward(exact, points)
    ones = torch.ones_like(points)
    first, second = signals(exact, passed, ones)
    inputs = points[..., None]
    gram = first @ first.mT * (inputs @ inputs.mT + 1) + second @ second.mT * (passed.a1 @ passed.a1.mT + 1) + passed.a2 @ passed.a2.mT + 1
    along = (first * passed.z1).sum(dim=2) + (second * passed.z2).sum(dim=2) + passed.out
    values, vectors = torch.linalg.eigh(gram)
    inverse = torch.where(values > _CUT * values[:, -1:], 1 / values, 0)
    coefficients = vectors @ (inverse[..., None] * (vectors.mT @ along[..., None]))
    return gradient(exact, passed, coefficients[..., 0]).to(theta.dtype)
