from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.oracles import LinearClassifier
from tests.methods.test_neg_grad_plus import everything
from tests.models import layer_of, linear_network, made, problem_of
from unlearned.api import forget
from unlearned.engine.batches import batch_positions, cycled
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Compute
from unlearned.errors import InputError
from unlearned.methods.noisy_gd import NoisyGD, noisy


def test_noise_has_mean_zero_and_the_given_deviation() -> None:
    """Over 40,000 draws: the mean within five standard errors, the variance too."""
    gradient = torch.linspace(-1, 1, 40_000, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noise = noisy(gradient, 0.3) - gradient
    n = len(noise)
    assert abs(float(noise.mean())) < 5 * 0.3 / math.sqrt(n)
    assert abs(float(noise.var()) / 0.09 - 1) < 5 * math.sqrt(2 / n)
    assert abs(float((noise * gradient).mean())) < 5 * 0.3 * math.sqrt(float((gradient**2).mean()) / n)


@pytest.mark.parametrize("paced_by", ["retain", "forget"])
def test_whole_run_by_hand(paced_by: Any) -> None:
    """New noise in each step, from the generator of the run, for the weights and then the biases."""
    problem = problem_of("linear", forget=6, retain=11, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    model = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    x, y = everything(problem.retain)
    seed, lr, sigma = 2, 0.1, 0.5
    stream = cycled(11, 4, seed, "retain", "stream")
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "fit"))
        for epoch in range(2):
            batches = batch_positions(11, 4, seed, "retain", epoch) if paced_by == "retain" else [next(stream) for _ in range(2)]
            for batch in batches:
                gradient = model.cross_entropy_gradient(x[batch], y[batch])
                model.step((gradient[0] + sigma * torch.randn(10, 64), gradient[1] + sigma * torch.randn(10)), lr)
    settings: dict[str, Any] = {"optimizer": "sgd", "lr": lr, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4, "epochs": 2}
    result = layer_of(forget(problem, "noisy-gd", seed=seed, sigma=sigma, paced_by=paced_by, **settings).model, 1)
    torch.testing.assert_close(result.weight.double(), model.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.bias.double(), model.bias, rtol=1e-5, atol=1e-6)


def test_scaled_gradients_are_refused() -> None:
    problem = problem_of("linear")
    engine = Engine(problem.task)
    engine.compute = Compute(precision="fp16")
    with pytest.raises(InputError, match="noise cannot be added to the scaled gradients of fp16") as error:
        NoisyGD().plan(problem, engine)
    assert NoisyGD().faults(problem, engine) == list(error.value.faults)
    assert not NoisyGD().faults(problem, Engine(problem.task))
