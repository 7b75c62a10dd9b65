from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.methods.oracles import LinearClassifier
from tests.methods.test_neg_grad_plus import everything
from tests.models import layer_of, linear_network, made, problem_of
from unlearned.api import forget
from unlearned.engine.batches import batch_positions, cycled
from unlearned.engine.engine import Engine
from unlearned.methods.l1_sparse import L1Sparse, l1_norm, l1_weight


def test_norm_and_its_gradient_by_hand() -> None:
    """|3| + |−1.5| + |0| + |−2| = 6.5; the gradient is the sign, 0 at 0."""
    tensors = [torch.tensor([[3.0, -1.5]], dtype=torch.float64, requires_grad=True), torch.tensor([0.0, -2.0], dtype=torch.float64, requires_grad=True)]
    norm = l1_norm(tensors)
    assert float(norm.detach()) == 6.5
    gradients = torch.autograd.grad(norm, tensors)
    assert [g.tolist() for g in gradients] == [[[1.0, -1.0]], [0.0, -1.0]]


@pytest.mark.parametrize(
    ("epochs", "without", "expected"),
    [(4, 0, [8.0, 6.0, 4.0, 2.0]), (5, 3, [8.0, 4.0, 0.0, 0.0, 0.0]), (1, 0, [8.0])],
)
def test_weight_falls_to_nothing_by_hand(epochs: int, without: int, expected: list[float]) -> None:
    """α (1 − t / (T − T₀)): it starts at α and would reach 0 in epoch T − T₀."""
    assert [l1_weight(8.0, epoch, epochs, without) for epoch in range(epochs)] == pytest.approx(expected, rel=1e-14)


def test_without_the_factor_two_it_is_the_variant_of_others() -> None:
    """(2 − 2t/T) λ is α_t with α = 2 λ."""
    assert [l1_weight(2 * 0.3, t, 7, 0) for t in range(7)] == pytest.approx([(2 - 2 * t / 7) * 0.3 for t in range(7)], rel=1e-14)


@pytest.mark.parametrize("paced_by", ["retain", "forget"])
def test_whole_run_by_hand(paced_by: Any) -> None:
    """Three epochs, the last without penalty: g + α_t sign(θ)."""
    problem = problem_of("linear", forget=6, retain=11, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    model = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    x, y = everything(problem.retain)
    seed, lr, alpha = 2, 0.1, 0.05
    stream = cycled(11, 4, seed, "retain", "stream")
    for epoch, weight in enumerate([alpha, alpha / 2, 0.0]):
        steps = 2 if paced_by == "forget" else 3
        batches = batch_positions(11, 4, seed, "retain", epoch) if paced_by == "retain" else [next(stream) for _ in range(steps)]
        assert len(batches) == steps
        for batch in batches:
            gradient = model.cross_entropy_gradient(x[batch], y[batch])
            model.step((gradient[0] + weight * model.weight.sign(), gradient[1] + weight * model.bias.sign()), lr)
    settings: dict[str, Any] = {"lr": lr, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4, "epochs": 3, "no_l1_epochs": 1, "alpha": alpha}
    result = layer_of(forget(problem, "l1-sparse", seed=seed, paced_by=paced_by, **settings).model, 1)
    torch.testing.assert_close(result.weight.double(), model.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.bias.double(), model.bias, rtol=1e-5, atol=1e-6)


def test_only_trained_weights_are_in_the_norm() -> None:
    problem = problem_of("plain")
    model = problem.original.model
    plan = L1Sparse(alpha=0.5, epochs=1).plan(problem, Engine(problem.task))
    batch = problem.task.collate([problem.retain[i] for i in range(4)])
    layer_of(model, 8).weight.requires_grad_(False)
    plain = float(problem.task.losses(model, batch).mean().detach())
    counted = sum(float(p.detach().abs().sum()) for name, p in model.named_parameters() if name != "8.weight")
    assert float(plan.passes[0].loss(model, {}, batch).detach()) == pytest.approx(plain + 0.5 * counted, rel=1e-5)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="none of the 3 epochs would have a penalty; lower no_l1_epochs"):
        L1Sparse(epochs=3, no_l1_epochs=3)
    with pytest.raises(ValidationError, match="l1-sparse is about the weights of the model"):
        L1Sparse.model_validate({"lora": {}})
