from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.methods.oracles import LinearClassifier, softmax_rows
from tests.methods.test_neg_grad_plus import everything
from tests.models import bits, layer_of, linear_network, made, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.batches import batch_positions
from unlearned.engine.engine import Engine
from unlearned.methods.boundary_shrink import BoundaryShrink, sign_step, target_classes


def test_step_by_hand() -> None:
    x = torch.tensor([0.5, 0.95, 0.02, 0.3], dtype=torch.float64)
    gradient = torch.tensor([2.0, 1e-9, -3.0, 0.0], dtype=torch.float64)
    assert sign_step(x, gradient, 0.1).tolist() == pytest.approx([0.6, 1.05, -0.08, 0.3], rel=1e-14)
    assert sign_step(x, gradient, 0.1, (0.0, 1.0)).tolist() == pytest.approx([0.6, 1.0, 0.0, 0.3], rel=1e-14)


def test_target_by_hand() -> None:
    """The first sample has left class 0; the second has not, and would be taught its own label."""
    logits, labels = torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 4.0]]), torch.tensor([0, 0])
    assert target_classes(logits, labels, only_wrong=True).tolist() == [1, 2]
    assert target_classes(logits, labels, only_wrong=False).tolist() == [1, 0]


def targets(settings: dict[str, Any], problem: Any) -> list[int]:
    samples = BoundaryShrink(**settings).sets(problem, Engine(problem.task))["forget"]
    return [int(samples[i]["nearest"]) for i in range(len(samples))]


def naive_targets(layer: Any, x: Tensor, y: Tensor, epsilon: float, only_wrong: bool, low: float = -torch.inf, high: float = torch.inf) -> list[int]:
    """With p = softmax(W x + b), ∂CE/∂x = Wᵀ (p − e_y)."""
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    found = []
    for image, label in zip(x, y.tolist(), strict=True):
        error = softmax_rows((weight @ image + bias)[None])[0]
        error[label] -= 1
        logits = weight @ (image + epsilon * (weight.T @ error).sign()).clamp(low, high) + bias
        order = [k for k in logits.argsort(descending=True).tolist() if k != label or not only_wrong]
        found.append(order[0])
    return found


@pytest.mark.parametrize("only_wrong", [True, False])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0])
def test_targets_against_the_gradient_by_hand(epsilon: float, only_wrong: bool) -> None:
    problem = problem_of("linear", forget=40, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    x, y = everything(problem.forget)
    found = targets({"epsilon": epsilon, "only_wrong": only_wrong}, problem)
    assert found == naive_targets(layer, x, y, epsilon, only_wrong)
    if only_wrong:
        assert all(target != label for target, label in zip(found, y.tolist(), strict=True))
    clamped = targets({"epsilon": epsilon, "only_wrong": only_wrong, "pixel_range": (0, 0.5)}, problem)
    assert clamped == naive_targets(layer, x, y, epsilon, only_wrong, 0.0, 0.5)


def test_some_samples_are_not_moved_out_of_their_class() -> None:
    """Then the largest logit is that of the true class, and descending on it would be training."""
    problem = problem_of("linear", forget=40, model=made(linear_network))
    found = targets({"epsilon": 1e-4, "only_wrong": False}, problem)
    assert any(target == label for target, label in zip(found, problem.forget.fact("label"), strict=True))


def test_a_confident_model_has_the_right_gradient() -> None:
    """Logits 64 and 32: in float32 p is (1, 1e-14), and p − e_0 loses its first entry. What is left is p_1 W_1, which points into the class, not out of it."""
    problem = problem_of("linear", model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(-1000)
        layer.weight[0], layer.weight[1] = 2.0, 1.0
        layer.bias[:2] = 0.0
    batch = {"pixel_values": torch.full((1, 1, 8, 8), 0.5), "labels": torch.tensor([0])}
    engine = Engine(problem.task)
    with torch.no_grad():
        assert BoundaryShrink(epsilon=1.0, only_wrong=False)._targets(engine, problem.original.model, batch).tolist() == [1]
    pixels = batch["pixel_values"].clone().requires_grad_()
    [rounded] = torch.autograd.grad(problem.task.losses(problem.original.model, batch | {"pixel_values": pixels}).sum(), [pixels])
    assert bool((rounded > 0).all())


def test_whole_run_by_hand() -> None:
    """The targets are those of the original throughout."""
    problem = problem_of("linear", forget=9, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    model = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    x, y = everything(problem.forget)
    wanted = torch.tensor(naive_targets(layer, x, y, 0.1, only_wrong=True))
    seed, lr = 4, 0.2
    for epoch in range(3):
        for batch in batch_positions(9, 4, seed, "forget", epoch):
            model.step(model.cross_entropy_gradient(x[batch], wanted[batch]), lr)
    settings: dict[str, Any] = {"lr": lr, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4, "epochs": 3}
    result = layer_of(forget(problem, "boundary-shrink", seed=seed, **settings).model, 1)
    torch.testing.assert_close(result.weight.double(), model.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.bias.double(), model.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_targets_do_not_depend_on_the_batch_or_the_mode(training: bool) -> None:
    problem = problem_of("plain", forget=12)
    problem.original.model.train(training)
    found = targets({}, problem)
    engine = Engine(problem.task)
    engine.compute = engine.compute.model_copy(update={"batch_size": 5})
    samples = BoundaryShrink().sets(problem, engine)["forget"]
    assert found == [int(samples[i]["nearest"]) for i in range(12)]
    problem.original.model.eval()
    assert found == targets({}, problem)


def test_the_retain_set_is_not_used() -> None:
    results = [bits(forget(problem_of("plain", retain=retain), "boundary-shrink", lr=0.05, epochs=2).model) for retain in (18, 11)]
    assert same_bits(*results)


def test_an_empty_range_of_pixels_is_refused() -> None:
    with pytest.raises(ValidationError, match="1 is not below 0"):
        BoundaryShrink(pixel_range=(1, 0))
