"""A model may rest on another device than that of the engine: a program has put it there."""

from __future__ import annotations

import pytest

from tests.models import Elsewhere, images
from unlearned.api import make_problem, model_faults
from unlearned.attacks.linear_probe import LinearProbe
from unlearned.engine.engine import Engine
from unlearned.influence._rank import grounds_of
from unlearned.influence.hessian import Hessian
from unlearned.methods.trw import TRW
from unlearned.tasks._task import Bundle


def test_what_is_asked_of_a_resting_model_is_asked_where_it_rests() -> None:
    model = Elsewhere()
    problem = make_problem(Bundle(model), train=images(0, 60), test=images(100, 30), forget="label in [3, 7]")
    assert problem.task.faults(problem.original, problem.test, "test") == []
    assert model_faults(problem, problem.original, "after") == []
    assert LinearProbe().faults(problem) == []
    engine = Engine(problem.task)
    assert TRW().faults(problem, engine) == []
    assert TRW()._class_vectors(problem, engine, 10).equal(model.head.weight.detach().double())
    expected = sum(float(p.detach().double().square().sum()) for p in model.head.parameters()) ** 0.5
    assert Hessian()._norm(grounds_of(problem, engine, None)[0], engine) == pytest.approx(expected)
