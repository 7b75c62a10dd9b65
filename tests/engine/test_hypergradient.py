"""The hypergradient against finite differences of the proximal problem, and against dense solves, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from unlearned.engine.adapters import Lora, with_adapter
from unlearned.engine.hypergradient import Hypergradient, Proximal, difference_products, exact_products, hypergradient, norm_of, solve

GAMMA = 0.3


class Case:
    """Leaves `before` fine-tuning, a loss L that fine-tuning lowers and a loss F that is asked for after it, as functions of flat vectors."""

    def __init__(self, make: Callable[[], nn.Module], tuned: str, started: str) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.model = make().double()
            self.x, self.y = torch.randn(12, 3, dtype=torch.float64), torch.randint(0, 2, (12,))
            self.other = torch.randn(12, 3, dtype=torch.float64)
        named = dict(self.model.named_parameters())
        for parameter in named.values():
            parameter.requires_grad_(True)
        self.tuned = [p for name, p in named.items() if tuned in name]
        self.started = [p for name, p in named.items() if started in name]

    def inner(self) -> Tensor:
        decay = torch.stack([(p**2).sum() for p in self.model.parameters()]).sum()
        total: Tensor = F.cross_entropy(self.model(self.x), self.y) + 0.03 * decay
        return total

    def outer(self) -> Tensor:
        total: Tensor = self.model(self.other)[:, 0].sin().mean() - F.cross_entropy(self.model(self.other), 1 - self.y)
        return total

    def hessian(self, of: list[nn.Parameter], by: list[nn.Parameter]) -> Tensor:
        """∂²L/∂of ∂by, dense: one row per entry of the gradient."""
        first = torch.cat([g.flatten() for g in torch.autograd.grad(self.inner(), of, create_graph=True)])
        identity = torch.eye(len(first), dtype=torch.float64)
        rows = torch.autograd.grad(first, by, identity, is_grads_batched=True, materialize_grads=True)
        return torch.cat([row.flatten(1) for row in rows], dim=1)

    def fine_tune(self, anchors: list[Tensor]) -> None:
        """w* by Newton's method on L(w) + ‖w − anchor‖² / 2γ, to rounding."""
        for _ in range(40):
            gradient = flat(list(torch.autograd.grad(self.inner(), self.tuned))) + (flat(self.tuned) - flat(anchors)) / GAMMA
            if gradient.norm() < 1e-12:
                return
            step = torch.linalg.solve(self.hessian(self.tuned, self.tuned) + torch.eye(len(gradient), dtype=torch.float64) / GAMMA, gradient)
            put(self.tuned, flat(self.tuned) - step)
        raise AssertionError("Newton's method has not converged")

    def after_fine_tuning(self, start: Tensor) -> float:
        """F(w*(θ)): a function of θ alone."""
        before = [p.detach().clone() for p in self.model.parameters()]
        put(self.started, start)
        self.fine_tune([p.detach().clone() for p in self.tuned])
        value = self.outer().item()
        for p, old in zip(self.model.parameters(), before, strict=True):
            p.data.copy_(old)
        return value

    def found(self, how: Proximal) -> Hypergradient:
        """The hypergradient at w*(θ)."""
        self.fine_tune([p.detach().clone() for p in self.tuned])
        return hypergradient(self.outer, self.inner, self.tuned, self.started, how)


def flat(tensors: list[Tensor] | list[nn.Parameter]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def put(parameters: list[nn.Parameter], values: Tensor) -> None:
    for p, part in zip(parameters, values.split([p.numel() for p in parameters]), strict=True):
        p.data.copy_(part.view_as(p))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def adapted() -> nn.Module:
    model: nn.Module = with_adapter(perceptron(), Lora(rank=2, alpha=2), ".*")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return model


CASES = {
    "all weights": (perceptron, "", ""),
    "fine-tuning trains more than can be changed": (perceptron, "", "2."),
    "and less": (perceptron, "2.", ""),
    "and others": (perceptron, "2.", "0."),
    "adapters by adapters": (adapted, "lora", "lora"),
    "weights by adapters": (adapted, "lora", "base_layer"),
}
EXACT = Proximal(gamma=GAMMA, iterations=400)


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_derivative_of_what_fine_tuning_ends_with(case: str) -> None:
    problem = Case(*CASES[case])
    start = flat(problem.started)
    directions = torch.linalg.qr(torch.randn(len(start), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0].T
    slopes = (
        torch.tensor([problem.after_fine_tuning(start + 1e-4 * d) - problem.after_fine_tuning(start - 1e-4 * d) for d in directions], dtype=torch.float64)
        / 2e-4
    )
    found = problem.found(EXACT)
    assert not found.solution.given_up
    assert found.value == problem.outer().item()
    assert (directions @ flat(found.gradient) - slopes).norm() < 1e-6 * slopes.norm()


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_dense_solution(case: str) -> None:
    problem = Case(*CASES[case])
    found = flat(problem.found(EXACT).gradient)
    everything = list(dict.fromkeys([*problem.tuned, *problem.started]))
    g = dict(zip(everything, torch.autograd.grad(problem.outer(), everything), strict=True))
    n = sum(p.numel() for p in problem.tuned)
    x = torch.linalg.solve(torch.eye(n, dtype=torch.float64) + GAMMA * problem.hessian(problem.tuned, problem.tuned), flat([g[p] for p in problem.tuned]))
    parts = dict(zip(problem.tuned, x.split([p.numel() for p in problem.tuned]), strict=True))
    expected = [parts[p] if p in parts else g[p].flatten() - GAMMA * problem.hessian([p], problem.tuned) @ x for p in problem.started]
    assert torch.linalg.vector_norm(found - torch.cat(expected)) < 1e-9 * torch.cat(expected).norm()


def test_products_are_those_of_the_dense_matrix_and_differences_come_near_and_leave_the_bits() -> None:
    problem = Case(perceptron, "", "")
    dense = problem.hessian(problem.tuned, problem.tuned)
    x = [torch.randn_like(p) for p in problem.tuned]
    before = flat(problem.tuned)
    exact = flat(exact_products(problem.inner, problem.tuned)(x, problem.tuned))
    near = flat(difference_products(problem.inner, problem.tuned)(x, problem.tuned))
    torch.testing.assert_close(exact, dense @ flat(x), rtol=1e-12, atol=1e-14)
    assert 0 < (near - exact).norm() < 1e-4 * exact.norm()
    assert torch.equal(flat(problem.tuned), before)
    # A displacement a tenth as long: an error a hundredth as large.
    nearer = flat(difference_products(problem.inner, problem.tuned, reach=1e-3)(x, problem.tuned))
    assert (nearer - exact).norm() / (near - exact).norm() == pytest.approx(0.01, rel=0.1)
    assert not any(part.any() for part in difference_products(problem.inner, problem.tuned)([torch.zeros_like(p) for p in problem.tuned], problem.tuned))


def test_a_linear_loss_has_no_curvature() -> None:
    w = torch.ones(3, requires_grad=True)
    assert not exact_products(lambda: 2 * w.sum(), [w])([torch.ones(3)], [w])[0].any()


def test_attention_has_second_derivatives() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        w = torch.randn(1, 1, 4, 8, dtype=torch.float64, requires_grad=True)
        keys = torch.randn(1, 1, 4, 8, dtype=torch.float64)

    def loss() -> Tensor:
        return (F.scaled_dot_product_attention(w, keys, keys) ** 2).sum()

    def plain() -> Tensor:
        return (((w @ keys.mT / 8**0.5).softmax(dim=-1) @ keys) ** 2).sum()

    direction = torch.ones_like(w)
    torch.testing.assert_close(exact_products(loss, [w])([direction], [w])[0], exact_products(plain, [w])([direction], [w])[0])


def quadratic(norm: float, n: int = 6, seed: int = 0, least: float | None = None) -> tuple[Tensor, Tensor]:
    """A symmetric matrix with ‖γH‖₂ = `norm` for γ = 1, and a right-hand side."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))
    values = torch.rand(n, dtype=torch.float64, generator=generator) * 2 - 1
    if least is not None:
        values = least + (1 - least) * values.abs()
    values = values / values.abs().max() * norm
    return q @ values.diag() @ q.T, torch.randn(n, dtype=torch.float64, generator=generator)


def solved(h: Tensor, g: Tensor, **how: Any) -> tuple[Tensor, float, bool]:
    found = solve(lambda x: [h @ x[0]], [g], Proximal(**{"gamma": 1.0, **how}))
    return found.x[0], found.damping, found.given_up


@pytest.mark.parametrize("seed", range(5))
def test_the_error_after_k_steps(seed: int) -> None:
    """x_k − h = −(−γH)^k h, hence at most 0.4^k ‖h‖."""
    h, g = quadratic(0.4, seed=seed)
    exact = torch.linalg.solve(torch.eye(6, dtype=torch.float64) + h, g)
    for k in range(1, 9):
        error = solved(h, g, iterations=k)[0] - exact
        torch.testing.assert_close(error, -torch.linalg.matrix_power(-h, k) @ exact, rtol=1e-9, atol=1e-13)
        assert error.norm() <= 0.4**k * exact.norm() * (1 + 1e-9)


def test_one_step_is_the_first_order_gradient_and_so_is_no_distance() -> None:
    h, g = quadratic(0.4)
    assert torch.equal(solved(h, g, iterations=1)[0], g)
    torch.testing.assert_close(solved(h, g, gamma=1e-9)[0], g, rtol=1e-8, atol=0)
    assert torch.equal(solved(100 * h, g, iterations=1)[0], g)  # no product, no divergence


def test_gamma_multiplies_the_matrix() -> None:
    h, g = quadratic(0.4)
    torch.testing.assert_close(solved(h / 3, g, gamma=3.0, iterations=4)[0], solved(h, g, iterations=4)[0])


def test_damped_it_is_the_naive_fixed_point() -> None:
    """v ← (I − s(γH + I)) v + g and h = s v, with the first s = 2^−i at which γH with eigenvalues up to 5 does not diverge: 1/4."""
    h, g = quadratic(5, least=0.8)
    x, damping, given_up = solved(h, g, iterations=7)
    phi = torch.eye(6, dtype=torch.float64) - damping * (h + torch.eye(6, dtype=torch.float64))
    v = torch.zeros(6, dtype=torch.float64)
    for _ in range(7):
        v = phi @ v + g
    assert (damping, given_up) == (0.25, False)
    torch.testing.assert_close(x, damping * v)
    exact = torch.linalg.solve(torch.eye(6, dtype=torch.float64) + h, g)
    torch.testing.assert_close(solved(h, g, iterations=400)[0], exact)


def next_of(answers: Iterator[bool], _: list[Tensor]) -> bool:
    return next(answers)


def test_smaller_damping_leaves_larger_errors_where_nothing_is_negative() -> None:
    h, g = quadratic(0.4, least=0.0)
    exact = torch.linalg.solve(torch.eye(6, dtype=torch.float64) + h, g)
    errors = []
    for tries in range(3):
        refused = iter([False] * tries + [True])
        found = solve(lambda x: [h @ x[0]], [g], Proximal(), small_enough=partial(next_of, refused))
        assert found.damping == 0.5**tries
        errors.append(float((found.x[0] - exact).norm()))
    assert errors == sorted(errors)
    assert errors[0] < errors[2] / 10


@pytest.mark.parametrize("guard", ["residual", "iterates"])
def test_the_guard_triggers_when_the_spectral_radius_reaches_one(guard: str) -> None:
    """With g along the leading direction the ratio is the radius: 0.99 passes, 1.01 is damped."""
    h, _ = quadratic(1.0)
    values, vectors = torch.linalg.eigh(h)
    g = vectors[:, values.abs().argmax()]
    for radius, damping in ((0.99, 1.0), (1.01, 0.5)):
        assert solved(radius * h * values[values.abs().argmax()].sign(), g, guard=guard, iterations=3)[1] == damping


@pytest.mark.parametrize("seed", range(5))
def test_the_ratio_of_residuals_never_falls_so_that_one_is_enough(seed: int) -> None:
    h, g = quadratic(3.0, seed=seed)
    ratios = []
    for k in range(2, 12):
        found = solve(lambda x: [h @ x[0]], [g], Proximal(iterations=k, retries=0))
        ratios.append(found.ratio)
        assert found.given_up is (found.ratio >= 1)
    assert ratios == sorted(ratios)
    assert ratios[-1] >= 1
    assert not found.x[0].any()


def test_when_it_is_given_up_there_is_no_hypergradient() -> None:
    problem = Case(perceptron, "", "")
    found = hypergradient(problem.outer, problem.inner, problem.tuned, problem.started, Proximal(), limit=lambda _: False)
    assert found.solution.given_up
    assert found.solution.retries == 5
    assert found.solution.damping == 0.5**5
    assert not any(part.any() for part in found.gradient)
    nothing = solve(lambda x: x, [torch.tensor([float("nan")])], Proximal())
    assert nothing.given_up


def test_the_limit_is_asked_about_the_gradient_that_is_returned() -> None:
    problem = Case(perceptron, "2.", "0.")
    asked: list[float] = []

    def limit(gradient: list[Tensor]) -> bool:
        asked.append(norm_of(gradient))
        return len(asked) == 3

    found = hypergradient(problem.outer, problem.inner, problem.tuned, problem.started, Proximal(gamma=0.1), limit=limit)
    assert found.solution.damping == 0.25
    assert norm_of(found.gradient) == pytest.approx(asked[-1])


def test_the_weight_multiplies_it_and_differences_agree() -> None:
    problem = Case(perceptron, "", "")
    one = hypergradient(problem.outer, problem.inner, problem.tuned, problem.started, Proximal(gamma=GAMMA))
    scaled = hypergradient(problem.outer, problem.inner, problem.tuned, problem.started, Proximal(gamma=GAMMA), weight=0.8)
    near = hypergradient(problem.outer, problem.inner, problem.tuned, problem.started, Proximal(gamma=GAMMA, products="differences"))
    torch.testing.assert_close(flat(scaled.gradient), 0.8 * flat(one.gradient))
    torch.testing.assert_close(flat(near.gradient), flat(one.gradient), rtol=1e-3, atol=1e-5)
    assert scaled.value == one.value
