from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.oracles import LinearClassifier, softmax_rows
from tests.methods.refusals import refused
from tests.methods.test_neg_grad_plus import everything
from tests.models import bits, layer_of, linear_network, made, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.batches import batch_positions, cycled
from unlearned.engine.engine import Engine
from unlearned.methods.npo import NPO, npo_loss
from unlearned.tasks._texts import IGNORED


def log_likelihoods(seed: int, n: int = 6) -> torch.Tensor:
    return -5 * torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0, 3.0])
def test_loss_against_the_ratio_of_probabilities(beta: float) -> None:
    """(2/β) · mean log(1 + (π/π*)^β), and the other way to write it, −(2/β) · mean log σ(−β log(π/π*))."""
    now, before = log_likelihoods(1), log_likelihoods(2)
    loops = sum(math.log1p((math.exp(a) / math.exp(b)) ** beta) for a, b in zip(now.tolist(), before.tolist(), strict=True))
    sigmoid = sum(math.log(1 / (1 + math.exp(beta * (a - b)))) for a, b in zip(now.tolist(), before.tolist(), strict=True))
    assert float(npo_loss(now, before, beta).mean()) == pytest.approx(2 / beta * loops / 6, rel=1e-12)
    assert float(npo_loss(now, before, beta).mean()) == pytest.approx(-2 / beta * sigmoid / 6, rel=1e-12)


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_at_the_original_it_is_ascent_with_weight_one(beta: float) -> None:
    """Loss (2/β) ln 2, gradient that of the mean log-likelihood."""
    now = log_likelihoods(3).requires_grad_()
    loss = npo_loss(now, now.detach(), beta).mean()
    assert float(loss.detach()) == pytest.approx(2 / beta * math.log(2), rel=1e-13)
    [gradient] = torch.autograd.grad(loss, [now])
    torch.testing.assert_close(gradient, torch.full_like(now, 1 / 6).detach(), rtol=1e-13, atol=0)


def test_gradient_fades_as_a_sample_becomes_unlikely_and_not_when_beta_is_small() -> None:
    """The weight of a sample is 2 π^β / (π^β + π*^β): far below the original it is nothing, for β → 0 it is 1."""
    before = log_likelihoods(4)
    now = (before - torch.tensor([0.0, 0.5, 1.0, 5.0, 50.0, 500.0])).requires_grad_()
    for beta in (1e-9, 0.1, 1.0):
        [gradient] = torch.autograd.grad(npo_loss(now, before, beta).mean(), [now])
        expected = [2 * math.exp(-beta * d) / (math.exp(-beta * d) + 1) for d in (0.0, 0.5, 1.0, 5.0, 50.0, 500.0)]
        assert (6 * gradient).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_whole_run_by_hand(alpha: float) -> None:
    problem = problem_of("linear", forget=7, retain=10, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    original = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    model = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    (x_f, y_f), (x_r, y_r) = everything(problem.forget), everything(problem.retain)
    seed, lr, beta = 3, 0.3, 0.8
    stream = cycled(10, 4, seed, "retain", "stream")
    for epoch in range(3):
        for batch in batch_positions(7, 4, seed, "forget", epoch):
            x, y = x_f[batch], y_f[batch]
            p, before = softmax_rows(model.logits(x)), softmax_rows(original.logits(x))
            rows = range(len(batch))
            ratio = (p[rows, y] / before[rows, y]) ** beta
            error = -p * (2 * ratio / (1 + ratio))[:, None]  # of log p_y with respect to the logits it is e_y − p
            error[rows, y] += 2 * ratio / (1 + ratio)
            retain = next(stream)
            keep = model.cross_entropy_gradient(x_r[retain], y_r[retain])
            model.step((error.T @ x / len(x) + alpha * keep[0], error.sum(dim=0) / len(x) + alpha * keep[1]), lr)
    settings: dict[str, Any] = {"optimizer": "sgd", "lr": lr, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4, "epochs": 3}
    result = layer_of(forget(problem, "npo", seed=seed, beta=beta, alpha=alpha, **settings).model, 1)
    torch.testing.assert_close(result.weight.double(), model.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.bias.double(), model.bias, rtol=1e-5, atol=1e-6)


def test_likelihood_of_a_text_is_that_of_all_its_answer_tokens() -> None:
    """Not the mean over tokens, and not of the prompt or the padding."""
    problem = problem_of("gpt2")
    model, task = problem.original.model, problem.task
    batch = task.collate([problem.forget[i] for i in range(6)])
    lengths = (batch["labels"][:, 1:] != IGNORED).sum(dim=1)
    assert len(set(lengths.tolist())) > 1
    with torch.no_grad():
        found = task.log_likelihoods(model, batch)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double()
    for i in range(6):
        total = 0.0
        for position in range(1, batch["labels"].shape[1]):
            token = int(batch["labels"][i, position])
            if token != IGNORED:
                total += float(torch.log_softmax(logits[i, position - 1], dim=0)[token])
        assert float(found[i]) == pytest.approx(total, rel=1e-6)
    torch.testing.assert_close(found, -task.losses(model, batch).double().detach() * lengths, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "gpt2"])
def test_reference_is_the_original_in_eval_mode(kind: str) -> None:
    """At the first step student and reference differ by dropout and batch statistics alone, whatever mode the original is in."""
    problem = problem_of(kind)
    engine, model = Engine(problem.task), problem.original.model
    samples = NPO().sets(problem, engine)["forget"]
    model.train()
    again = NPO().sets(problem, engine)["forget"]
    assert model.training
    model.eval()
    with torch.no_grad():
        expected = problem.task.log_likelihoods(model, problem.task.collate([problem.forget[i] for i in range(6)]))
    for found in (samples, again):
        torch.testing.assert_close(torch.stack([found[i]["original_log_likelihood"] for i in range(6)]), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "gpt2"])
def test_forget_samples_become_less_likely(kind: str) -> None:
    problem = problem_of(kind)
    engine = Engine(problem.task)
    result = forget(problem, "npo", optimizer="adam", lr=0.01, epochs=5).model
    before, after = (engine.evaluate(model, problem.forget, problem.task.log_likelihoods) for model in (problem.original.model, result))
    assert bool((after < before).all())


def test_without_weight_the_retain_set_is_not_used() -> None:
    results = []
    for retain in (18, 11):
        problem = problem_of("plain", retain=retain)
        results.append(bits(forget(problem, "npo", lr=0.01, epochs=2).model))
    assert same_bits(*results)


def test_a_divergence_of_tokens_is_refused_where_there_are_none() -> None:
    problem = problem_of("plain")
    refused(problem, "npo", "kl is a divergence between tokens", alpha=1.0, retain_loss="kl")
    assert not NPO(retain_loss="kl").faults(problem, Engine(problem.task))  # α is 0: it is not asked for
