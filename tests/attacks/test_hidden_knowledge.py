"""A model that only hides a class is found out by what comes back; a retrained model is not. Over three seeds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.models import images, layer_of, made
from unlearned.api import make_problem
from unlearned.attacks._attack import Attack
from unlearned.attacks.linear_probe import LinearProbe
from unlearned.attacks.relearn import Relearn
from unlearned.data.samples import union
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training, train
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.tasks._task import Bundle

CLASS = 3


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def hidden(model: nn.Module, *, row: bool) -> nn.Module:
    """The same weights, but the last layer never says the class: its bias is lowered, and perhaps its row emptied."""
    changed = copy.deepcopy(model)
    head = layer_of(changed, 3)
    with torch.no_grad():
        head.bias[CLASS] -= 10
        if row:
            head.weight[CLASS] = 0
    return changed


@pytest.fixture(scope="module")
def subjects() -> list[dict[str, Subject]]:
    """For each seed the same references beside a model that hides the class, and beside one more that was retrained."""
    found = []
    for seed in range(3):
        bundle = Bundle(made(network))
        problem = make_problem(bundle, train=images(0, 400), test=images(1297, 200), forget=f"label == {CLASS}")
        engine = Engine(problem.task, seed=seed)
        how = Training(epochs=10, lr=0.1, batch_size=32)
        original = train(engine, bundle, union(problem.forget, problem.retain), how, seed)
        retrained = [train(engine, bundle, problem.retain, how, 100 * seed + i) for i in range(1, 4)]
        problem = Problem(problem.task, original, problem.forget, problem.retain, problem.test)
        bank = [Kept(bundle, None, None) for bundle in retrained[1:]]
        models = {"bias": hidden(original.model, row=False), "row": hidden(original.model, row=True), "retrained": retrained[0].model}
        found.append({name: Subject(problem, original.with_model(model), bank, engine) for name, model in models.items()})
    return found


def gaps(subjects: list[dict[str, Subject]], name: str, attack: Attack, budget: float) -> list[float]:
    found = []
    for of_seed in subjects:
        findings = attack.measure(of_seed[name])
        found += [f.gap for f in findings if (f.subject, f.metric, f.budget) == ("unlearned", "knowledge", budget) and f.gap is not None]
    assert len(found) == 3
    return found


def test_nobody_shows_the_class_before_the_attack(subjects: list[dict[str, Subject]]) -> None:
    for name in ("bias", "row", "retrained"):
        assert max(map(abs, gaps(subjects, name, Relearn(steps=1), 0))) < 0.1


def test_relearning_brings_back_in_five_steps_what_was_hidden(subjects: list[dict[str, Subject]]) -> None:
    attack = Relearn(steps=5, batch_size=8)
    assert min(gaps(subjects, "bias", attack, 5)) > 0.8
    assert max(map(abs, gaps(subjects, "retrained", attack, 5))) < 0.1


@pytest.mark.parametrize("name", ["bias", "row"])
def test_one_sample_of_each_class_shows_what_the_features_know(subjects: list[dict[str, Subject]], name: str) -> None:
    """Also where the row of the class is gone, so that nothing of the last layer could come back."""
    attack = LinearProbe(samples=1)
    of_hidden, of_retrained = gaps(subjects, name, attack, 1), gaps(subjects, "retrained", attack, 1)
    assert min(of_hidden) > 0.1
    assert abs(float(np.mean(of_retrained))) < 0.1
    assert float(np.mean(of_hidden)) > 0.2
