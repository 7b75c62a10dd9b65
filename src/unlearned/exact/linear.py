"""Linear models: the interpolator of least norm.

Paper: Block et al. 2025, arXiv 2505.22601, theorem 2.
Formula: f(x) = θᵀx, R = ‖θ‖₂. If θ* fits the retained data, θ̃ = P_{S_r} θ*, S_r = span of the retained inputs, is pinv(X_r) y_r.
Deviations: several outputs, each a linear model of its own; R is then the Frobenius norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlearned.errors import Fault, raise_faults
from unlearned.exact._result import Exact, Retained, bias_faults, fit_faults, kind_of, replaced, residual, retained


def projected(weights: Tensor, data: Retained) -> Tensor:
    """W P_{S_r}: of each row of W, (K, d), the part in the span of the retained inputs."""
    _, sigma, directions = torch.linalg.svd(data.inputs, full_matrices=False)
    basis = directions[sigma > data.precision * sigma[0]]
    found: Tensor = weights @ basis.T @ basis
    return found


def least_norm(data: Retained) -> Tensor:
    """pinv(X_r) y_r, (K, d), one row per output."""
    solution: Tensor = torch.linalg.pinv(data.inputs, rtol=data.precision) @ data.targets
    return solution.T


def forget_linear(model: nn.Module, inputs: Tensor, targets: Tensor, *, tolerance: float = 1e-5) -> Exact:
    """Forget everything but the retained data: the linear map of least norm that fits them.

    Args:
        model: `nn.Linear` without bias, from d numbers to K, that fits the retained data. It is not changed.
        inputs: X_r, (n, d): all that is retained.
        targets: y_r, (n,) or (n, K).
        tolerance: how far the model may be from them, relative to the largest if that is above 1.

    Returns:
        The model with W P_{S_r} in the place of W.

    Raises:
        InputError: with every assumption of theorem 2 that does not hold.
    """
    linear = model if isinstance(model, nn.Linear) else None
    faults = bias_faults(linear, 0) if linear else [Fault("model", f"it is {kind_of(model)}, not a linear map.", "Give an nn.Linear.")]
    data, more = retained(inputs, targets, *((linear.in_features, linear.out_features) if linear else (None, None)))
    raise_faults([*faults, *more])
    raise_faults(fit_faults(model, data, tolerance))
    assert linear is not None
    weight = linear.weight.detach().cpu().double()
    kept = projected(weight, data)
    new = replaced(model, {linear: kept})
    return Exact(
        model=new,
        theorem="Theorem 2",
        statement="The weights are pinv(X_r) y_r: the least in norm of all that fit the retained data.",
        complexity="norm of the weights",
        before=float(weight.norm()),
        after=float(kept.norm()),
        bound=float(least_norm(data).norm()),
        residual=residual(new, data),
    )
