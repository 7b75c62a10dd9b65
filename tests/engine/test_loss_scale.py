"""Gradients that are too small or too large for fp16: loss scaling, on the CPU, with the scaler that accelerate has on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models import bits, problem_of
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.engine.hypergradient import Hypergradient, Solution
from unlearned.engine.loop import Pass, Plan, fit
from unlearned.engine.settings import Compute, Optimisation
from unlearned.methods._resilience import Course, Resilience
from unlearned.problem import Problem

SCALE = 2.0**16


@pytest.fixture
def scaled() -> Iterator[Any]:
    """Makes engines in fp16."""
    from accelerate.state import AcceleratorState

    def made(problem: Problem) -> Engine:
        AcceleratorState._reset_state(True)  # its precision is one of the whole process
        engine = Engine(problem.task, Compute(precision="fp16", device="cpu"))
        engine.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
        return engine

    yield made
    AcceleratorState._reset_state(True)


class Half(nn.Module):
    """Its weights pass through float16, as in autocast: a derivative below 2⁻²⁵ is 0 there, one above 65504 infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))

    def forward(self, factor: float) -> Tensor:
        return factor * self.weight.half().float().sum()


@pytest.mark.parametrize("power", [-30, -14, 0, 6, 14])
def test_gradients_neither_vanish_nor_overflow(power: int, scaled: Any) -> None:
    model, engine = Half(), scaled(problem_of("linear"))
    found, unused = engine.gradients(model(2.0**power), [model.weight, model.unused])
    assert found.tolist() == [2.0**power] * 3
    assert unused is None
    assert engine.loss_scale == SCALE
    if power == -30:
        [without] = torch.autograd.grad(model(2.0**power), [model.weight])
        assert without.tolist() == [0, 0, 0]


def test_in_other_precisions_they_are_those_of_torch() -> None:
    model, engine = Half(), Engine(problem_of("linear").task)
    assert engine.loss_scale == 1
    value = model(3.0)
    assert [engine.gradients(value, [model.weight], retain_graph=retain)[0].tolist() for retain in (True, False)] == [[3.0] * 3] * 2  # type: ignore[union-attr]


class NothingRehearsed:
    """A fine-tuning that changes nothing, and that nothing depends on."""

    def through(self, model: nn.Module, *_: object, **__: object) -> Hypergradient:
        zeros = [torch.zeros_like(p) for p in model.parameters()]
        return Hypergradient(zeros, 0.0, Solution(zeros, 1.0, 0.0, 0.0, 0, False))


def test_the_part_of_a_resilient_objective_that_is_taken_now_does_not_vanish(scaled: Any) -> None:
    """With β ½ and a learning rate of 2³⁰ one step of a gradient of 2⁻³⁰ takes ½ off the weights."""
    problem = problem_of("linear")
    engine, model = scaled(problem), Half()

    def loss(model: nn.Module, *_: object) -> Tensor:
        value: Tensor = model(2.0**-30)
        return value

    course = Course(Resilience(beta=0.5, rehearsals=1), NothingRehearsed(), engine, None, "faint")  # type: ignore[arg-type]
    how = Optimisation(optimizer="sgd", lr=2.0**30, momentum=0, weight_decay=0, batch_size=len(problem.forget), epochs=1)
    made = fit(engine, model, course.revised(Plan([Pass("forget", loss)])), {"forget": problem.forget}, how, title="faint", seed=0)
    assert isinstance(made, Half)
    assert made.weight.tolist() == [0.5] * 3


def test_gradients_that_are_added_to_scaled_ones_are_scaled_as_well(scaled: Any) -> None:
    """Meta-unlearning adds gradients of its own after the backward pass: with one step of SGD on them alone the weights move as in full precision."""
    problem = problem_of("pixel")
    how: dict[str, Any] = {"steps": 1, "batch_size": 3, "lr": 1.0, "trajectory_steps": 2, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    how |= {"lose_concept": 0.5, "keep_other": 0.5}
    start = bits(problem.original.model)
    full, half = (bits(forget(problem, "meta-unlearning", engine(), **how).model) for engine in (lambda: Engine(problem.task), lambda: scaled(problem)))
    moved = {name: (full[name] - start[name]).norm() for name in start if full[name].is_floating_point()}
    apart = {name: (full[name] - half[name]).norm() for name in moved}
    assert sum(moved.values()) > 0.1
    assert sum(apart.values()) < 0.05 * sum(moved.values())
