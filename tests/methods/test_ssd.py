from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.models import bits, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.engine.gradients import mean_squared_gradients
from unlearned.engine.randomness import derive_seed
from unlearned.methods import ssd
from unlearned.methods.ssd import dampen


def parts(seed: int = 0, shape: tuple[int, ...] = (4, 5)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights, importance, forget_importance = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(3))
    return weights, importance**2, 5 * forget_importance**2


@pytest.mark.parametrize("alpha", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("dampening", [0.1, 1.0, 3.0])
def test_dampen_against_a_loop(alpha: float, dampening: float) -> None:
    weights, importance, forget_importance = parts()
    expected = weights.clone()
    for i in range(4):
        for j in range(5):
            all_, forgotten = float(importance[i, j]), float(forget_importance[i, j])
            if forgotten > alpha * all_:
                expected[i, j] *= min(dampening * all_ / forgotten, 1.0)
    torch.testing.assert_close(dampen(weights, importance, forget_importance, alpha, dampening), expected, rtol=1e-14, atol=0)


def test_dampen_by_hand() -> None:
    """α 2, λ 1: 1 is not more than 2 · 1, so it stays; 8 is, so θ · 1/8; nothing matters for all data: 0; nothing matters at all: it stays."""
    theta = torch.tensor([3.0, 4.0, 5.0, 6.0], dtype=torch.float64)
    result = dampen(theta, torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), torch.tensor([1.0, 8.0, 2.0, 0.0]).double(), 2.0, 1.0)
    assert result.tolist() == [3.0, 0.5, 0.0, 6.0]


def test_dampen_with_infinite_alpha_or_very_large_lambda_changes_nothing() -> None:
    weights, importance, forget_importance = parts()
    assert torch.equal(dampen(weights, importance, forget_importance, math.inf, 1.0), weights)
    assert torch.equal(dampen(weights, torch.zeros_like(importance), forget_importance, math.inf, 1.0), weights)
    assert torch.equal(dampen(weights, importance, forget_importance, 0.5, 1e12), weights)


@pytest.mark.parametrize("kind", ["plain", "gpt2", "unet"])
def test_infinite_alpha_is_the_identity_on_models(kind: str) -> None:
    problem = problem_of(kind)
    assert same_bits(bits(forget(problem, "ssd", alpha=math.inf).model), bits(problem.original.model))


def test_very_large_lambda_is_the_identity_on_models() -> None:
    problem = problem_of("plain")
    result, original = (bits(model) for model in (forget(problem, "ssd", alpha=0.5, dampening=1e30).model, problem.original.model))
    # A weight that matters for nothing but the forget set has I_D > 0 all the same, because D holds the forget set.
    assert same_bits(result, original)


def naive_importance(problem, model, rows: list, size: int) -> dict[str, Tensor]:
    """A batch at a time, by .backward(), in float64."""
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    batches = 0
    for start in range(0, len(rows), size):
        batch = problem.task.collate(rows[start : start + size])
        model.zero_grad()
        logits = model(batch["pixel_values"].double())
        chosen = torch.log_softmax(logits, dim=1)[range(len(logits)), batch["labels"]]
        (-chosen.sum() / len(logits)).backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad**2
        batches += 1
    return {name: total / batches for name, total in sums.items()}


def test_whole_run_against_naive_gradients() -> None:
    problem, seed, alpha, dampening, size = problem_of("plain"), 3, 1.2, 0.7, 4
    import copy

    model = copy.deepcopy(problem.original.model).double().eval()
    forgotten = [problem.forget[i] for i in range(6)]
    everything = forgotten + [problem.retain[i] for i in range(18)]
    import numpy as np

    first = np.random.default_rng(derive_seed(seed, "ssd")).permutation(6)
    order = np.random.default_rng(derive_seed(seed, "ssd")).permutation(24)
    importance_f = naive_importance(problem, model, [forgotten[i] for i in first], size)
    importance_d = naive_importance(problem, model, [everything[i] for i in order], size)
    result = dict(forget(problem, "ssd", seed=seed, alpha=alpha, dampening=dampening, batch_size=size).model.named_parameters())
    dampened = 0
    for name, weight in model.named_parameters():
        for position in range(weight.numel()):
            f, d = float(importance_f[name].flatten()[position]), float(importance_d[name].flatten()[position])
            if abs(f - alpha * d) < 1e-4 * f:  # too close to the threshold for float32
                continue
            expected = float(weight.detach().flatten()[position])
            if f > alpha * d:
                expected *= min(dampening * d / f, 1.0)
                dampened += 1
            assert float(result[name].detach().flatten()[position]) == pytest.approx(expected, rel=2e-4, abs=1e-7)
    assert dampened > 50


def test_importance_of_single_samples_is_the_diagonal_of_the_empirical_fisher() -> None:
    problem = problem_of("plain")
    model = problem.original.model
    found = mean_squared_gradients(Engine(problem.task), model, problem.retain, 1)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(len(problem.retain)):
        row = problem.retain[i]
        loss = -torch.log_softmax(model(row["pixel_values"][None]), dim=1)[0, row["labels"]]
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient**2 / len(problem.retain)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-9)


def test_importance_counts_what_it_looked_at_and_leaves_the_model_alone() -> None:
    problem = problem_of("plain")
    model, engine = problem.original.model, Engine(problem.task)
    before = bits(model)
    model.train()
    with engine.measuring() as meter:
        mean_squared_gradients(engine, model, problem.retain, 4)
    assert (meter.cost.samples_seen, meter.cost.steps) == (18, 5)
    assert model.training
    assert same_bits(before, bits(model))


def test_the_forget_set_is_shuffled(monkeypatch) -> None:
    """Sorted by class its batches would be of one class, whose gradients do not cancel: its importance would be many times too large."""
    problem, orders = problem_of("plain"), []

    def watch(engine, model, samples, batch_size):
        orders.append(samples.ids)
        return mean_squared_gradients(engine, model, samples, batch_size)

    monkeypatch.setattr(ssd, "mean_squared_gradients", watch)
    forget(problem, "ssd", batch_size=2)
    of_forget, of_all = orders
    assert of_forget != problem.forget.ids
    assert sorted(of_forget) == sorted(problem.forget.ids)
    assert of_all != problem.forget.ids + problem.retain.ids
    assert sorted(of_all) == sorted(problem.forget.ids + problem.retain.ids)
