from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.oracles import LinearClassifier, softmax_rows
from tests.methods.test_neg_grad_plus import everything
from tests.models import bits, layer_of, linear_network, made, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.batches import batch_positions
from unlearned.engine.engine import Engine
from unlearned.methods.scrub import Scrub, distillation_loss


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_loss_against_the_explicit_sum(temperature: float) -> None:
    """T²/B Σ_b Σ_c q log(q/p), q of the teacher, p of the student."""
    student, teacher = logits(1), logits(2)
    p, q = softmax_rows(student / temperature), softmax_rows(teacher / temperature)
    total = 0.0
    for i in range(6):
        for c in range(5):
            total += float(q[i, c]) * math.log(float(q[i, c]) / float(p[i, c]))
    assert float(distillation_loss(student, teacher, temperature)) == pytest.approx(temperature**2 * total / 6, rel=1e-12)


def test_loss_of_equal_logits_is_zero_and_shifts_do_not_matter() -> None:
    assert float(distillation_loss(logits(1), logits(1) + 5, 2.0)) == pytest.approx(0, abs=1e-14)


def test_loss_is_not_symmetric() -> None:
    one, other = (float(distillation_loss(*pair, 1.0)) for pair in ((logits(1), logits(2)), (logits(2), logits(1))))
    assert abs(one - other) > 1e-2


def test_loss_survives_extreme_logits() -> None:
    extreme = torch.tensor([[1e4, 0.0], [0.0, -1e4]])
    assert bool(torch.isfinite(distillation_loss(extreme, extreme.flip(0), 1.0)))


def test_whole_run_by_hand() -> None:
    """Max and min passes alternate while e ≤ msteps, then min passes alone; the teacher stays the original; the rate falls after the named epochs."""
    problem = problem_of("linear", forget=5, retain=11, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    teacher = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    student = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    x_f, y_f = everything(problem.forget)
    x_r, y_r = everything(problem.retain)
    del y_f
    seed, lr, gamma, alpha, temperature = 2, 0.2, 0.9, 0.4, 3.0
    number = 0
    for epoch in (1, 2, 3):
        rate = lr * (0.1 if epoch > 2 else 1)
        if epoch <= 2:
            for batch in batch_positions(5, 2, seed, "forget", number):
                gradient = student.distillation_gradient(x_f[batch], teacher, temperature)
                student.step((-gradient[0], -gradient[1]), rate)
            number += 1
        for batch in batch_positions(11, 4, seed, "retain", number):
            hard = student.cross_entropy_gradient(x_r[batch], y_r[batch])
            soft = student.distillation_gradient(x_r[batch], teacher, temperature)
            student.step((gamma * hard[0] + alpha * soft[0], gamma * hard[1] + alpha * soft[1]), rate)
        number += 1
    before = bits(problem.original.model)
    result = forget(
        problem,
        "scrub",
        seed=seed,
        lr=lr,
        momentum=0.0,
        weight_decay=0.0,
        batch_size=4,
        forget_batch_size=2,
        epochs=3,
        max_epochs=2,
        gamma=gamma,
        alpha=alpha,
        temperature=temperature,
        lr_decay_epochs=(2,),
    ).model
    torch.testing.assert_close(layer_of(result, 1).weight.double(), student.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer_of(result, 1).bias.double(), student.bias, rtol=1e-5, atol=1e-6)
    assert same_bits(bits(problem.original.model), before)


@pytest.mark.parametrize(("epochs", "most", "passes"), [(3, 2, "frfrr"), (2, 0, "rr"), (2, 5, "frfr")])
def test_order_of_the_passes(epochs: int, most: int, passes: str) -> None:
    problem = problem_of("linear")
    plan = Scrub(epochs=epochs, max_epochs=most).plan(problem, Engine(problem.task))
    assert "".join(pass_.over[0] for pass_ in plan.passes) == passes


def test_learning_rate_falls_after_the_named_epochs() -> None:
    problem = problem_of("linear")
    plan = Scrub(epochs=5, max_epochs=1, lr_decay_epochs=(2, 4)).plan(problem, Engine(problem.task))
    assert plan.lr_factor is not None
    assert [plan.lr_factor(i) for i in range(6)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])


def test_max_passes_drive_the_student_from_its_teacher_on_forget() -> None:
    problem = problem_of("plain")
    settings: dict[str, Any] = {"epochs": 2, "max_epochs": 2, "lr": 0.02, "gamma": 0.0, "alpha": 0.0, "forget_batch_size": 3, "weight_decay": 0.0}
    moved = forget(problem, "scrub", **settings).model
    engine = Engine(problem.task)
    said = [engine.evaluate(model, problem.forget, problem.task.outputs) for model in (problem.original.model, moved)]
    assert float(distillation_loss(said[1], said[0], 4.0)) > 1e-4
