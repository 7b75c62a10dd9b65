from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.influence.small import Small, dense_gauss_newton, dense_gradients, flat, minimised, named, perceptron, small, softmax_regression
from unlearned.influence._last_layer import curvature, gradient_norms, gradients, left_out, newton_residuals, seen
from unlearned.influence.hessian import Hessian


def parts(case: Small) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    [part] = seen(case.engine, case.model, case.grounds.points)
    return part.residuals, part.probabilities, part.inputs


def weight_and_bias(rows: torch.Tensor, width: int, classes: int) -> torch.Tensor:
    """Rows of autograd, weights then biases, in the order class by class."""
    weight, bias = rows[:, : classes * width].view(-1, classes, width), rows[:, classes * width :]
    return torch.cat([weight, bias[:, :, None]], dim=2).flatten(1)


def test_gradients_and_norms_of_the_last_layer_are_those_of_autograd() -> None:
    case = small(perceptron)
    r, _, x = parts(case)
    last = dense_gradients(case)[:, -(3 * 5 + 3) :]
    assert torch.allclose(gradients(r, x), weight_and_bias(last, 5, 3), atol=1e-14)
    assert torch.allclose(gradient_norms(r, x), last.norm(dim=1), atol=1e-14)


def test_the_curvature_is_the_hessian_of_softmax_regression() -> None:
    case = small(softmax_regression)
    _, p, x = parts(case)
    weights = {name: value.detach() for name, value in case.model.named_parameters()}
    blocks = torch.func.jacrev(torch.func.jacrev(lambda w: case.losses(w).sum()))(weights)
    rows = torch.cat([torch.cat([blocks[a][b].reshape(weights[a].numel(), -1) for b in weights], dim=1) for a in weights])
    order = weight_and_bias(torch.arange(51.0).view(1, -1), 16, 3)[0].long()
    assert torch.allclose(curvature(p, x), rows[order][:, order], atol=1e-12)
    assert torch.allclose(rows / 12, dense_gauss_newton(case), atol=1e-12)


def test_a_whole_newton_step_takes_the_points_own_curvature_out() -> None:
    case = small(softmax_regression)
    r, p, x = parts(case)
    n = len(r)
    h = curvature(p, x) / n + 0.1 * torch.eye(51, dtype=torch.float64)
    found = gradients(left_out(r, p, x, torch.linalg.inv(h), n), x) @ torch.linalg.inv(h)
    for z in range(n):
        own = curvature(p[z : z + 1], x[z : z + 1])
        assert torch.allclose(found[z], torch.linalg.solve(h - own / n, gradients(r, x)[z]), atol=1e-10)


def test_leaving_a_point_out_of_a_ridge_regression_is_exact() -> None:
    """θ minimises (1/n) Σ ½‖x_z θ − y_z‖² + λ/2 ‖θ‖²; without z the same with one term less: closed forms of both."""
    generator = torch.Generator().manual_seed(0)
    n, d, k, penalty = 12, 5, 2, 0.3
    x, y = (torch.randn(n, size, generator=generator, dtype=torch.float64) for size in (d, k))
    h = x.T @ x / n + penalty * torch.eye(d, dtype=torch.float64)
    theta = torch.linalg.solve(h, x.T @ y / n)
    residuals = x @ theta - y
    leverage = torch.einsum("bd,de,be->b", x, torch.linalg.inv(h), x)
    one = torch.eye(k, dtype=torch.float64).expand(n, k, k)
    corrected = newton_residuals(residuals, one, leverage[:, None, None] * one, n)
    for z in range(n):
        rest = [i for i in range(n) if i != z]
        without = torch.linalg.solve(h - torch.outer(x[z], x[z]) / n, x[rest].T @ y[rest] / n)
        moved = torch.linalg.solve(h, torch.outer(x[z], corrected[z])) / n
        assert torch.allclose(theta + moved, without, atol=1e-12, rtol=1e-8)


def test_first_order_misses_the_truth_by_the_square_of_one_over_n() -> None:
    """Softmax regression with an L2 penalty, minimised without each point in turn: a step that had a wrong factor would miss it by 1/n."""
    penalty, sizes = 0.1, (12, 24, 48, 96)
    missed: dict[bool, list[float]] = {False: [], True: []}
    for n in sizes:
        case = small.__wrapped__(softmax_regression, count=n)
        start = flat({name: p.detach() for name, p in case.model.named_parameters()})
        full = minimised(case, penalty, torch.ones(n, dtype=torch.float64), start)
        with torch.no_grad():
            for name, parameter in case.model.named_parameters():
                parameter.copy_(named(case, full)[name])
        moved = torch.stack([minimised(case, penalty, torch.arange(n) != z, full) - full for z in range(n)])
        for leverage, errors in missed.items():
            steps = Hessian(of="parameters", damping=penalty, leverage=leverage).rate(case.grounds, case.engine).values / n
            errors.append(float((moved.norm(dim=1) - steps).abs().mean()))
    for errors in missed.values():
        slope = float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
        assert slope == pytest.approx(-2, abs=0.3)
    assert all(whole < 0.1 * first for first, whole in zip(missed[False], missed[True], strict=True))
