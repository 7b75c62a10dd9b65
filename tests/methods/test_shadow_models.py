from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.models import bits, problem_of, same_bits
from unlearned.api import forget
from unlearned.data.samples import union
from unlearned.engine import training
from unlearned.engine.bank import Bank
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training, train
from unlearned.methods import methods
from unlearned.methods._bank import shadow_models
from unlearned.methods._method import Method
from unlearned.problem import Problem

HOW = Training(epochs=1, batch_size=8)


def method_of(name: str, **settings: Any) -> Method:
    kind: Any = methods.get(name)
    made: Method = kind(epochs=1, **settings)
    return made


@pytest.mark.parametrize("kind", ["plain", "gpt2"])
def test_each_starts_from_an_original_of_its_own_seed(kind: str, tmp_path: Path) -> None:
    problem = problem_of(kind)
    method = method_of("gradient-ascent", lr=0.001)
    shadows = shadow_models(Bank(Engine(problem.task), tmp_path), problem, method, HOW, [3, 4])
    for seed, shadow in zip((3, 4), shadows, strict=True):
        engine = Engine(problem.task, seed=seed)
        original = train(engine, problem.original, union(problem.forget, problem.retain), HOW, seed)
        by_hand = forget(Problem(problem.task, original, problem.forget, problem.retain, problem.test), method, engine)
        assert same_bits(bits(shadow.bundle.model), bits(by_hand.model))
    assert not same_bits(bits(shadows[0].bundle.model), bits(shadows[1].bundle.model))


def test_originals_are_shared_between_methods_and_nothing_is_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def counting(*given, **more):
        trained.append(given[4])
        return train(*given, **more)

    monkeypatch.setattr(training, "train", counting)
    problem = problem_of("plain")
    bank = Bank(Engine(problem.task), tmp_path)
    made = [shadow_models(bank, problem, method_of(name), HOW, [1, 2]) for name in ("fine-tune", "gradient-ascent", "fine-tune")]
    assert trained == [1, 2]
    assert same_bits(bits(made[0][0].bundle.model), bits(made[2][0].bundle.model))
    assert not same_bits(bits(made[0][0].bundle.model), bits(made[1][0].bundle.model))
