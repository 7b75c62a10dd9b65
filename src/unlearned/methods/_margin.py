"""The narrowest linear test that says 1 on some rows and nearly 0 on others."""

from __future__ import annotations

import torch
from torch import Tensor


def margin_loss(u: Tensor, shift: Tensor, keep: Tensor, tolerance: float, ridge: float) -> Tensor:
    """Σ max(0, 1 − u·h)² over rows to shift + Σ max(0, |u·h| − τ)² over rows to keep + λ ‖u‖², a scalar.

    Args:
        u: (p,).
        shift: rows to shift, (N, p).
        keep: rows to keep, (M, p).
        tolerance: τ ≥ 0.
        ridge: λ > 0.
    """
    missing, excess = (1 - shift @ u).clamp(min=0), ((keep @ u).abs() - tolerance).clamp(min=0)
    return (missing**2).sum() + (excess**2).sum() + ridge * (u @ u)


def margin_solve(shift: Tensor, keep: Tensor, tolerance: float, ridge: float, rounds: int) -> Tensor:
    """The minimum of `margin_loss`, by Newton's method, (p,).

    The loss is convex and quadratic between the points where a row begins or ceases to count. So a step is the least squares over the rows that count, halved
    until the loss falls; it is exact as soon as they no longer change. The first step is least squares over all rows.

    Args:
        shift: rows to shift, (N, p), in float64.
        keep: rows to keep, (M, p), in float64.
        tolerance: τ ≥ 0.
        ridge: λ > 0.
        rounds: most steps.
    """
    eye = ridge * torch.eye(shift.shape[1], dtype=shift.dtype, device=shift.device)
    u: Tensor = torch.linalg.solve(shift.T @ shift + keep.T @ keep + eye, shift.sum(dim=0))
    loss = margin_loss(u, shift, keep, tolerance, ridge)
    for _ in range(rounds):
        said = keep @ u
        short, over = shift[shift @ u < 1], said.abs() > tolerance
        much = keep[over]
        target = short.sum(dim=0) + much.T @ (tolerance * said[over].sign())
        step: Tensor = torch.linalg.solve(short.T @ short + much.T @ much + eye, target) - u
        size, before = 1.0, loss
        while (loss := margin_loss(u + size * step, shift, keep, tolerance, ridge)) > before and size > 1e-3:
            size /= 2
        if loss >= before:
            break
        u = u + size * step
        if before - loss < 1e-9 * before:
            break
    return u
