"""The best state of a training is its result, whoever judges and however often it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.models import bits, flags, made, plain_network, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.engine.keeping import Keep
from unlearned.engine.loop import Pass, Plan, fit
from unlearned.engine.settings import Compute, Optimisation

SCORES = {1: (0.0, 5.0), 2: (1.0, 1.0), 3: (1.0, 3.0), 4: (1.0, 3.0), 5: (0.0, 9.0), 6: (1.0, 2.0)}
"""By step; of equals the first is kept."""


def trained(steps: int | None = None, *, work: Path | None = None, **more: Any) -> nn.Module:
    problem = problem_of("plain")
    plan = Plan([Pass("retain", lambda model, _, batch: problem.task.losses(model, batch).mean())] * 2, max_steps=steps)
    engine = Engine(problem.task, Compute(checkpoint_seconds=0))
    where = None if work is None else work / "state"
    return fit(engine, made(plain_network), plan, {"retain": problem.retain}, Optimisation(batch_size=8, lr=0.05), title="t", seed=1, checkpoint=where, **more)


class Judge:
    """Scores by the step that the model is at, and can break down."""

    def __init__(self, start: int = 0, every: int = 1, breaks: int | None = None) -> None:
        self.step, self.every, self.breaks = start, every, breaks
        self.asked: list[int] = []

    def __call__(self, model: nn.Module) -> Sequence[float]:
        assert isinstance(model, nn.Module)
        self.step = min(self.step + self.every, 6)
        if self.step == self.breaks:
            raise ZeroDivisionError
        self.asked.append(self.step)
        return SCORES[self.step]


@pytest.mark.parametrize(("every", "asked", "kept"), [(1, [1, 2, 3, 4, 5, 6], 3), (2, [2, 4, 6], 4), (4, [4, 6], 4), (100, [6], 6)])
def test_the_first_of_the_best_states_is_the_result(every: int, asked: list[int], kept: int) -> None:
    judge, told = Judge(every=every), []
    result = trained(keep=Keep(every, judge, lambda step, score: told.append((step, tuple(score)))))
    assert judge.asked == asked
    assert told == [(kept, SCORES[kept])]
    assert same_bits(bits(result), bits(trained(kept)))  # statistics of batch normalisation, too
    assert not result.training


def test_interrupted_after_the_best_state_it_is_still_the_result(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        trained(work=tmp_path, keep=Keep(1, Judge(breaks=5)))
    judge = Judge(start=4)
    result = trained(work=tmp_path, keep=Keep(1, judge))
    assert judge.asked == [5, 6]
    assert same_bits(bits(result), bits(trained(3)))


def test_a_training_that_is_ended_before_its_first_step_keeps_what_it_had() -> None:
    assert same_bits(bits(trained(keep=Keep(1, Judge()), watch=lambda _, __: True)), bits(made(plain_network)))


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        ("plain", "neg-grad-plus", {"batch_size": 8, "epochs": 1, "parameters": r"^8\."}),
        ("llama", "eru", {"batch_size": 3, "epochs": 2, "lr": 0.05, "lora": {"rank": 2}}),
        ("unet", "gradient-ascent", {"batch_size": 2, "epochs": 1}),
    ],
)
def test_who_judges_is_given_what_would_be_returned_and_disturbs_nothing(kind: str, name: str, settings: dict[str, Any]) -> None:
    """Of every task: a plain model with the flags of the original, in eval mode. The state that is kept is the one that was judged."""
    problem = problem_of(kind)
    seen: list[dict[str, Any]] = []

    def judge(model: nn.Module) -> Sequence[float]:
        assert type(model) is type(problem.original.model)
        assert flags(model) == flags(problem.original.model)
        assert not model.training
        seen.append(bits(model))
        for parameter in model.parameters():  # its own to spoil
            parameter.data.zero_()
        return (float(len(seen) == 2),)

    result = forget(problem, name, Engine(problem.task).keeping(Keep(1, judge)), **settings)
    assert len(seen) > 2
    assert all(result.model.state_dict()[key].allclose(tensor) for key, tensor in seen[1].items() if key in result.model.state_dict())
    last = forget(problem, name, Engine(problem.task), **settings)
    assert all(tensor.allclose(seen_last) for tensor, seen_last in ((t, seen[-1][key]) for key, t in bits(last.model).items() if key in seen[-1]))
    assert not same_bits(bits(last.model), bits(result.model))


def test_work_beside_a_training_keeps_no_best_state() -> None:
    engine = Engine(problem_of("plain").task, seed=3).keeping(Keep(1, Judge()))
    assert engine.keep is not None
    assert engine.aside(4).keep is None
    assert engine.with_seed(4).keep is None
