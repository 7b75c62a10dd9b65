"""Resilience to relearning as the criterion of which state is kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.models import bits, problem_of, same_bits
from unlearned.api import forget
from unlearned.attacks.relearn import Relearn
from unlearned.audits.membership import Membership
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.methods import methods
from unlearned.problem import Problem
from unlearned.recipe import parse_recipe
from unlearned.selection import Selection, SelectionSpec

ATTACK = Relearn(steps=2, batch_size=3)


def with_validation() -> Problem:
    problem = problem_of("plain")
    return Problem(problem.task, problem.original, problem.forget, problem.retain, problem.test.subset(range(8)), problem.test.subset(range(8, 16)))


def damaged(model: nn.Module) -> nn.Module:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.mul_(0)
    return broken


def test_a_useful_state_counts_by_the_worst_point_of_the_attack_and_another_by_its_utility() -> None:
    problem = with_validation()
    engine = Engine(problem.task, seed=2)
    model = problem.original.model
    keep = Selection(SelectionSpec(every=3, floor=1.0), ATTACK).keep(problem, engine)
    useful, goodness = keep.judge(model)
    assert (keep.every, useful) == (3, 1.0)
    assert -1 < goodness < 0
    strict = Selection(SelectionSpec(floor=1e9), ATTACK).keep(problem, engine)
    utility = float(engine.evaluate(model, problem.sets["validation"], problem.task.utility).mean())
    assert list(strict.judge(model)) == [0.0, utility]  # nobody is as useful as that
    assert engine.meter.cost.steps == 0


def test_the_test_set_is_not_looked_at() -> None:
    problem = with_validation()
    other = Problem(problem.task, problem.original, problem.forget, problem.retain, problem_of("plain", test=12).test, problem.validation)
    scores = [list(Selection(SelectionSpec(floor=0.0), ATTACK).keep(each, Engine(each.task)).judge(each.original.model)) for each in (problem, other)]
    assert scores[0] == scores[1]


def test_an_unlearning_keeps_the_most_resilient_of_its_useful_states() -> None:
    problem = with_validation()
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "lr": 0.05}
    engine, said = Engine(problem.task), list[str]()
    keep = Selection(SelectionSpec(every=1, floor=0.0), ATTACK).keep(problem, engine, said.append)
    scores = []

    def judge(model: nn.Module) -> Any:
        scores.append(tuple(keep.judge(model)))
        return scores[-1]

    made = forget(problem, "neg-grad-plus", engine.keeping(keep._replace(judge=judge)), **settings)
    best = scores.index(max(scores)) + 1
    assert said == [f"kept the state after {best} steps"]
    spec = SelectionSpec(every=1, floor=0.0, by={"name": "relearn", "steps": 2, "batch_size": 3})
    again = forget(problem, "neg-grad-plus", Engine(problem.task), selection=spec, **settings)
    assert same_bits(bits(again.model), bits(made.model))


def test_what_cannot_be_selected_is_said_before_any_work() -> None:
    problem = problem_of("plain")
    selection = Selection(SelectionSpec(), ATTACK)
    assert {fault.field for fault in selection.faults(problem, methods.get("ssd")())} == {"data.validation", "selection"}
    assert not selection.faults(with_validation(), methods.get("npo")())
    with pytest.raises(InputError, match="of which there are none"):
        forget(problem, "neg-grad-plus", selection=SelectionSpec())


def test_a_metric_that_is_not_there_is_named() -> None:
    problem = with_validation()
    keep = Selection(SelectionSpec(metric="aucc", floor=0.0), Membership()).keep(problem, Engine(problem.task))
    with pytest.raises(InputError, match="membership has no metric 'aucc'"):
        keep.judge(damaged(problem.original.model))


RECIPE: dict[str, Any] = {"model": "m", "data": {"train": "a", "test": "b", "validation": "c"}, "forget": {"where": "label == 3"}, "method": "npo"}


def test_recipes_name_the_judge_with_its_settings() -> None:
    bare = RECIPE | {"references": {"count": 0}}
    recipe = parse_recipe(bare | {"selection": {"every": 5, "by": {"name": "relearn", "steps": 7}}})
    assert recipe.selection is not None
    assert recipe.selection.judge == Relearn(steps=7)
    assert recipe.effective()["selection"]["by"]["steps"] == 7
    assert parse_recipe(bare).effective()["selection"] is None
    named = parse_recipe(bare | {"selection": {"by": "utility"}}).selection
    assert named is not None
    assert named.judge.name == "utility"
    for given, message in (({"by": "relern"}, "Did you mean 'relearn'"), ({"by": {"name": "relearn", "stesp": 1}}, "no such field"), ({"every": 0}, "greater")):
        with pytest.raises(InputError, match=message):
            parse_recipe(bare | {"selection": given})
    with pytest.raises(InputError, match="shadow models are made by the method alone"):
        parse_recipe(RECIPE | {"training": {"epochs": 1}, "shadows": {"count": 2}, "selection": {}})
