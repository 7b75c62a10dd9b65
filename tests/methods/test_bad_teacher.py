from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.methods.oracles import LinearClassifier, softmax_rows
from tests.methods.test_neg_grad_plus import everything
from tests.models import bits, layer_of, linear_network, made, plain_network, problem_of
from unlearned.api import forget
from unlearned.engine.batches import batch_positions
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.methods.bad_teacher import BadTeacher, teaching_loss


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_loss_against_the_explicit_sum(temperature: float) -> None:
    """1/B Σ_b Σ_k q log(q/p), q of the teacher, p of the student; no factor T²."""
    generator = torch.Generator().manual_seed(1)
    student, teacher = (3 * torch.randn(4, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    p, q = softmax_rows(student / temperature), softmax_rows(teacher / temperature)
    total = sum(float(q[i, k]) * math.log(float(q[i, k]) / float(p[i, k])) for i in range(4) for k in range(5))
    assert float(teaching_loss(student, teacher, temperature)) == pytest.approx(total / 4, rel=1e-12)
    assert float(teaching_loss(student, student + 3, temperature)) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(("retain", "share", "expected"), [(18, 0.3, 5), (18, 1.0, 18), (18, 0.01, 1), (11, 0.5, 5)])
def test_a_share_of_the_retain_set_is_drawn_once(retain: int, share: float, expected: int) -> None:
    problem = problem_of("plain", retain=retain)
    method = BadTeacher(retain_share=share)
    sets = [method.sets(problem, Engine(problem.task, seed=seed)) for seed in (1, 1, 2)]
    assert [len(s["retain"]) for s in sets] == [expected] * 3
    assert sets[0]["retain"].ids == sets[1]["retain"].ids
    assert set(sets[0]["retain"].ids) <= set(problem.retain.ids)
    assert (sets[0]["retain"].ids == sets[2]["retain"].ids) is False
    assert all(s["forget"].ids == problem.forget.ids for s in sets)


def bad_weights(seed: int) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "bad-teacher", "teacher"))
        return nn.Linear(64, 10)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_whole_run_by_hand(temperature: float) -> None:
    """Mixed batches: forget samples follow random weights of a seed of their own, retain samples the original."""
    problem = problem_of("linear", forget=7, retain=20, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    seed, lr = 3, 0.3
    original, student = (LinearClassifier(layer.weight.detach(), layer.bias.detach()) for _ in range(2))
    fresh = bad_weights(seed)
    bad = LinearClassifier(fresh.weight.detach(), fresh.bias.detach())
    x_f, _ = everything(problem.forget)
    x_r, _ = everything(problem.retain.shuffled(derive_seed(seed, "bad-teacher", "retain")))
    x_r = x_r[:10]
    kinds = set()
    for number in range(2):
        for batch in batch_positions(17, 4, seed, "union", number):
            f, r = [i for i in batch if i < 7], [i - 7 for i in batch if i >= 7]
            kinds.add((bool(f), bool(r)))
            x = torch.cat([x_f[f], x_r[r]])
            q = softmax_rows(torch.cat([bad.logits(x_f[f]), original.logits(x_r[r])]) / temperature)
            error = (softmax_rows(student.logits(x) / temperature) - q) / temperature
            student.step((error.T @ x / len(x), error.sum(dim=0) / len(x)), lr)
    assert (True, True) in kinds
    settings: dict[str, Any] = {"optimizer": "sgd", "lr": lr, "momentum": 0.0, "batch_size": 4, "epochs": 2, "retain_share": 0.5}
    result = layer_of(forget(problem, "bad-teacher", seed=seed, temperature=temperature, **settings).model, 1)
    torch.testing.assert_close(result.weight.double(), student.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.bias.double(), student.bias, rtol=1e-5, atol=1e-6)


def test_both_teachers_are_in_eval_mode_and_the_batch_is_one() -> None:
    """A student equal to the original has loss 0 on a retain batch in eval mode; in train mode its statistics are those of the whole mixed batch."""
    problem = problem_of("plain", model=made(plain_network).train())
    engine, task = Engine(problem.task), problem.task
    loss = BadTeacher().plan(problem, engine).passes[0].loss
    forgotten, retained = (task.collate([samples[i] for i in range(4)]) for samples in (problem.forget, problem.retain))
    student = made(plain_network)
    with torch.no_grad():
        assert float(loss(student, {}, retained)) == pytest.approx(0, abs=1e-6)
        teacher = made(plain_network)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(0, "bad-teacher", "teacher"))
            bad = task.fresh(problem.original).model.eval()
        q = softmax_rows(torch.cat([bad(forgotten["pixel_values"]), teacher(retained["pixel_values"])]).double())
        student.train()
        layer_of(student, 7).p = 0.0
        p = softmax_rows(student(torch.cat([forgotten["pixel_values"], retained["pixel_values"]])).double())
        assert float(loss(student, forgotten, retained)) == pytest.approx(float((q * (q / p).log()).sum(dim=1).mean()), rel=1e-4)


def test_the_bad_teacher_knows_nothing_of_the_original() -> None:
    """Its weights are those of the seed, whatever the original's weights are."""
    results = []
    for start in (1, 2):
        problem = problem_of("linear", model=made(linear_network, start))
        settings: dict[str, Any] = {"optimizer": "sgd", "lr": 1.0, "momentum": 0.0, "batch_size": 8, "epochs": 300, "retain_share": 0.01}
        results.append(layer_of(forget(problem, "bad-teacher", seed=5, **settings).model, 1))
    x, _ = everything(problem_of("linear").forget)
    fresh = bad_weights(5)
    wanted = softmax_rows(x @ fresh.weight.detach().double().T + fresh.bias.detach().double())
    for result in results:
        said = softmax_rows(x @ result.weight.detach().double().T + result.bias.detach().double())
        assert float((said - wanted).abs().max()) < 0.02


def test_original_and_generators_stay_as_they_were() -> None:
    problem = problem_of("plain")
    before, state = bits(problem.original.model), torch.get_rng_state()
    BadTeacher().plan(problem, Engine(problem.task))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in bits(problem.original.model).items())
