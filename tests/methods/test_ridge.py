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
from unlearned.methods.ridge import Ridge, squared_norm


def test_norm_and_its_gradient_by_hand() -> None:
    """3² + (−1)² + 2² = 14; the gradient is 2 θ."""
    tensors = [torch.tensor([[3.0, -1.0]], dtype=torch.float64, requires_grad=True), torch.tensor([2.0], dtype=torch.float64, requires_grad=True)]
    norm = squared_norm(tensors)
    assert float(norm.detach()) == 14.0
    assert [g.tolist() for g in torch.autograd.grad(norm, tensors)] == [[[6.0, -2.0]], [4.0]]


@pytest.mark.parametrize("paced_by", ["retain", "forget"])
def test_whole_run_by_hand(paced_by: Any) -> None:
    """The penalty falls after every step, over the ends of epochs too: g + 2 λ γᵏ θ."""
    problem = problem_of("linear", forget=6, retain=11, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    model = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    x, y = everything(problem.retain)
    seed, lr, penalty, decay, step = 2, 0.1, 0.4, 0.7, 0
    stream = cycled(11, 4, seed, "retain", "stream")
    for epoch in range(2):
        batches = batch_positions(11, 4, seed, "retain", epoch) if paced_by == "retain" else [next(stream) for _ in range(2)]
        for batch in batches:
            gradient, pull = model.cross_entropy_gradient(x[batch], y[batch]), 2 * penalty * decay**step
            model.step((gradient[0] + pull * model.weight, gradient[1] + pull * model.bias), lr)
            step += 1
    assert step == (6 if paced_by == "retain" else 4)
    settings: dict[str, Any] = {"optimizer": "sgd", "lr": lr, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4, "epochs": 2}
    result = layer_of(forget(problem, "ridge", seed=seed, paced_by=paced_by, penalty=penalty, decay=decay, **settings).model, 1)
    torch.testing.assert_close(result.weight.double(), model.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.bias.double(), model.bias, rtol=1e-5, atol=1e-6)


def test_adapters_are_refused() -> None:
    with pytest.raises(ValidationError, match="ridge is about the weights of the model"):
        Ridge.model_validate({"lora": {}})
